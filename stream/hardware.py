"""Whether this machine's GPU decodes and encodes video, found out by doing it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from stream.errors import SinkError, SourceError
from stream.nvidia import driver_trouble
from stream.sinks.encoder import EncoderUnable, choose_encoder
from stream.sinks.nvenc import NVENC
from stream.sources.file import FileSource

CLIPS = {
    "h264": (
        "h264",
        "AAAAAWdkAA2s2UEAhoQAAAMABAAAAwDIPFCmWAAAAAFo6+ESyLAAAAABZYiEAX/+i5OoytjiYDLwilPTdeNsHgag"
        "lMVRw6+gZY+HsuNULo1vfTtjwfkDCVQCS7eh0HsmHi6dt31UXg4M+43YOrUhT/Cmai2KryLfhwEPWCj+2/XslfAL"
        "oDQAFQXHC6Vb2VFe+8BJUldfss7KBo1XCs0gssoZ1u2fOuEAAAABQZohbEn/AALa",
    ),
    "hevc": (
        "hevc",
        "AAAAAUABDAH//wFgAAADAJAAAAMAAAMAPJWYCQAAAAFCAQEBYAAAAwCQAAADAAADADygCAgEBZZWaSTK5oCAAAAD"
        "AIAAAAyEAAAAAUQBwXK0YkAAAAEoAa8OSHhoT0D79sJ58bTBGagmyutET7BOhQu7YU8RHNuK03IlxjEmb/JwoNqX"
        "9lBUQjCZt+aArHwOYPWNUyoOezDNycMfi6DqOW8rG8YR9LlBXvvkom0fz6Bez2VKE2sV94m53HnZQR4E1X2tl8DE"
        "bajS/aSC3MkM4PvJZdqH6iLU+SU+GJzkaitqsGtgynOYtDAFi/VdBIrlXlYgR8URCTNWMddaDgt8mxgAAAABAgHQ"
        "CX4QxhyRS/wcuNE3yJ6LlA==",
    ),
    "av1": (
        "ivf",
        "REtJRgAAIABBVjAxAAEAARkAAAABAAAAAgAAAAAAAACdAAAAAAAAAAAAAAASAAoLAAAAA7//+NXzAIAyiwEQAI3g"
        "gccMME+8AowXZeMFxJkjjrzh2pLnvD5bg9s7JbiX/tR+1pZHvIQiM+qGNHNLRFoaUs/dR6q83IQxgn7k+xjaMibq"
        "Th/fKDT007/BvZ6SP3r3dGbvgkwMKOcmh9Ae5EZtIJtCBRD6ZMOxjsr57OSs15yuSP6TvrDilPDg+qRVBXBeHW3R"
        "IODgGAAAAAEAAAAAAAAAEgAyFDACBAkkkjpaAAABHwAAAMLpvvv0",
    ),
    "vp9": (
        "ivf",
        "REtJRgAAIABWUDkwAAEAARkAAAABAAAAAgAAAAAAAACdAAAAAAAAAAAAAACCSYNCAA/wD/YAOCQcGMYAAiBh/i+j"
        "/T8q067XfXxEdX9Seh+xeqve8RTV31zVwM1YvSAAJSKmIB9bbHNbBzP1zA1gGL6V3lfqRUVHwBUMggUsZkmOIwQB"
        "A8StitSkNeAx0rweuns8u7z/rzX20ano1AseAYdiDmQRB9nGAONh8pjCVZOzAzau70AcyFI709KcVtAuiBZogaK9"
        "v+TgEgAAAAEAAAAAAAAAhgBAkpwAVoAAAyAAAFoz6HJQ",
    ),
}
"""By codec: suffix and content of a file of two frames, 256x256, each plane a ramp of grey."""
FRAMES = 2


def examine_hardware() -> Iterator[tuple[str, str | None]]:
    """What an NVIDIA GPU does for video here, as it is tried.

    Yields:
        A name, as "NVDEC hevc", and None if it works, else why not and the cure. Without any GPU
        it is one line for all.
    """
    if trouble := driver_trouble():
        yield "NVDEC, NVENC", trouble
        return
    for codec in CLIPS:
        yield f"NVDEC {codec}", probe_decoder(codec)
    for encoder in NVENC:
        yield f"NVENC {encoder.partition('_')[0]}", probe_encoder(encoder)


def probe_decoder(codec: str) -> str | None:
    """Decode two frames on the GPU; what one file needs beyond that shows only with the file.

    Args:
        codec: one of `CLIPS`.

    Returns:
        None if they came, the first as the CPU decodes it; else why not and the cure.
    """
    suffix, content = CLIPS[codec]
    with TemporaryDirectory() as folder:
        clip = Path(folder, f"clip.{suffix}")
        clip.write_bytes(b64decode(content))
        try:
            with FileSource(clip, decode="cuda") as source:
                count = sum(1 for _ in source)
        except SourceError as error:
            return str(error.__cause__ or error)
    return None if count == FRAMES else f"NVDEC gave {count} of {FRAMES} frames of {codec}"


def probe_encoder(codec: str) -> str | None:
    """Encode a frame of 256x256 on the GPU.

    Args:
        codec: one of `stream.sinks.nvenc.NVENC`.

    Returns:
        None if a packet came; else why not and the cure.
    """
    try:
        choose_encoder(codec, None, None, "matroska")
    except EncoderUnable as error:
        return error.reason
    except SinkError as error:
        return str(error)
    return None
