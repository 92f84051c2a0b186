"""Where annotated frames go: `file`, `window`, `scores`, `null`; the contract is `base`."""
