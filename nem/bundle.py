"""Finding, opening and checking bundles. Imports no torch; opening one executes no code.

A bundle is a folder: `nem.json`, `weights.safetensors`, `graph.onnx` and `README.md` (its card).
It lives in the package, in any folder, or on the Hugging Face hub.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

from nem.errors import BundleError, first_line
from nem.hashes import sha256_of, stored_sha256
from nem.logs import quiet_hub
from nem.manifest import CARD, FORMAT, GRAPH, MANIFEST, PARTS, WEIGHTS, Manifest

__all__ = ["Bundle", "Manifest", "is_bundle", "list_bundles", "open_bundle"]

EMBEDDED = Path(__file__).parent / "bundles"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle whose files were checked against its manifest.

    Attributes:
        path: its folder.
        manifest: what `nem.json` says.
    """

    path: Path
    manifest: Manifest

    @property
    def weights_path(self) -> Path:
        """Weights of backbone and decoder (safetensors)."""
        return self.path / WEIGHTS

    @property
    def graph_path(self) -> Path:
        """The fused graph, uint8 frames to mask, scores and embedding (ONNX)."""
        return self.path / GRAPH

    def read(self, name: str) -> bytes:
        """The bytes of `WEIGHTS` or `GRAPH`, those that the manifest tells.

        Raises:
            BundleError: the file can't be read, or was changed since the bundle was opened.
        """
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise BundleError(
                f"bundle {self.path}: can't read {name} ({error.strerror}); get the bundle again"
            ) from None
        self.check(name, hashlib.sha256(data).hexdigest())
        return data

    def check(self, name: str, found: str | None = None) -> None:
        """Make sure that a file is still the one that the manifest tells.

        Args:
            name: `WEIGHTS` or `GRAPH`.
            found: its SHA-256; None: of the file as it is now.

        Raises:
            BundleError: it was changed since the bundle was opened.
        """
        if (found or sha256_of(self.path / name)) != self.manifest.files[name]:
            raise BundleError(
                f"bundle {self.path}: {name} was changed since the bundle was opened; open it again"
            )

    @property
    def card_path(self) -> Path:
        """The model card (Markdown). It may be edited, so its hash is not kept."""
        return self.path / CARD


def list_bundles() -> list[str]:
    """Names of the bundles that come with the package, sorted."""
    return sorted(path.parent.name for path in EMBEDDED.glob(f"*/{MANIFEST}"))


def is_bundle(name: str | Path) -> bool:
    """Whether `name` can only mean a bundle: an embedded name, a folder, or a hub id."""
    return (
        isinstance(name, Path)
        or name in list_bundles()
        or Path(name).is_dir()
        or _HUB_ID.match(name) is not None
    )


def open_bundle(name_or_path: Bundle | Path | str) -> Bundle:
    """Open a bundle and check it.

    Args:
        name_or_path: name of an embedded bundle, else an existing folder, else a hub id
            `owner/name`. A `Path` is always a folder. One that is open is given back.

    Returns:
        The bundle; manifest and hashes, of files and of the backbone's tensors, are checked,
        nothing is executed.

    Raises:
        BundleError: not found, hub not reachable, damaged, of another format version, or with
            another backbone than its decoder was trained on.
    """
    if isinstance(name_or_path, Bundle):
        return name_or_path
    try:
        return _open_named(name_or_path)
    except PermissionError as error:
        raise BundleError(
            f"bundle {name_or_path}: no permission to read {error.filename}; "
            f"try: chmod -R u+rX {name_or_path}"
        ) from None


def _open_named(name_or_path: Path | str) -> Bundle:
    if isinstance(name_or_path, Path):
        return _open_folder(name_or_path)
    if not isinstance(name_or_path, str):
        raise BundleError(
            f"bundle: expected a name, a folder or a hub id, got {type(name_or_path).__name__}"
        )
    if name_or_path in list_bundles():
        return _open_folder(EMBEDDED / name_or_path)
    if name_or_path and Path(name_or_path).exists():
        return _open_folder(Path(name_or_path))
    if _HUB_ID.match(name_or_path):
        return _open_folder(_download(name_or_path))
    known = list_bundles()
    near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"embedded: {', '.join(known) or 'none'}"
    raise BundleError(
        f"no bundle called {name_or_path!r}: {hint} "
        "(allowed: an embedded name, a folder, or a hub id owner/name)"
    )


def _open_folder(path: Path) -> Bundle:
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise BundleError(f"bundle {path}: expected a folder, found {found}; give a bundle folder")
    for file in (path / name for name in (MANIFEST, WEIGHTS, GRAPH)):
        # A pipe would be waited for, a link to a device read without an end.
        if file.exists() and not file.is_file():
            raise BundleError(f"bundle {path}: {file.name} is no file; get the bundle again")
    manifest = _read_manifest(path)
    for name, expected in manifest.files.items():
        try:
            actual = sha256_of(path / name)
        except PermissionError:
            raise
        except OSError as error:
            raise BundleError(
                f"bundle {path}: can't read {name} ({error.strerror}); get the bundle again"
            ) from None
        if actual != expected:
            raise BundleError(
                f"bundle {path}: {name} is damaged (SHA-256 {actual[:12]}..., "
                f"{MANIFEST} says {expected[:12]}...); get the bundle again"
            )
    _check_backbone(path, manifest)
    return Bundle(path, manifest)


def _check_backbone(path: Path, manifest: Manifest) -> None:
    try:
        actual = stored_sha256(path / WEIGHTS, PARTS[0])
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"bundle {path}: can't read {WEIGHTS}: {first_line(error)}; get the bundle again"
        ) from None
    expected = manifest.backbone.sha256
    if actual != expected:
        raise BundleError(
            f"bundle {path}: backbone {manifest.backbone.name} has tensors of SHA-256 "
            f"{actual[:12]}..., the decoder was trained on {expected[:12]}...; get the bundle again"
        )


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = sorted(path.glob(f"*/{MANIFEST}"))  # as in the folder of a training
        hint = f"give {inside[0].parent}" if inside else "is it a bundle?"
        raise BundleError(f"bundle {path}: no {MANIFEST} inside; {hint}") from None
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"bundle {path}: can't read {MANIFEST}: {first_line(error)}; get the bundle again"
        ) from None
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != FORMAT or isinstance(version, bool):
        raise BundleError(
            f"bundle {path}: {MANIFEST} has format {version!r}, this version reads {FORMAT}; "
            "update nem-stream or get another bundle"
        )
    try:
        return Manifest.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        more = f" (and {len(others)} more)" if others else ""
        raise BundleError(
            f"bundle {path}: {MANIFEST}: {where}: {first['msg']}{more}; get the bundle again"
        ) from None


def _download(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
        )
    except ImportError:
        raise BundleError(
            f"bundle {hub_id}: no such folder, and reading the hub needs an extra: "
            "pip install 'nem-stream[train]'"
        ) from None
    files = [MANIFEST, WEIGHTS, GRAPH, CARD]
    try:
        with quiet_hub():
            return Path(snapshot_download(hub_id, allow_patterns=files))
    except RepositoryNotFoundError:
        reason = "the hub has no such model (or it is private)"
    except HFValidationError as error:
        reason = f"not a valid hub id ({first_line(error)})"
    except (HfHubHTTPError, OSError) as error:
        reason = f"the hub can't be reached ({first_line(error)})"
    raise BundleError(
        f"bundle {hub_id}: no such folder, and {reason}; check the name and the network, "
        "or give a folder"
    )
