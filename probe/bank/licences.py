"""Names of licences: one spelling for each, that of SPDX if it has one. No torch here."""

# Lower case, as libraries and hubs write them → the name.
NAMES = {
    "apache-2.0": "Apache-2.0", "apache2": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd": "BSD-3-Clause",
    "bsl-1.0": "BSL-1.0", "isc": "ISC", "mit": "MIT", "unlicense": "Unlicense",
    "cc0-1.0": "CC0-1.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0", "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
    "cc-by-nc-nd-4.0": "CC-BY-NC-ND-4.0", "gpl-3.0": "GPL-3.0-only", "agpl-3.0": "AGPL-3.0-only",
    "openrail": "LicenseRef-OpenRAIL",
    # SPDX has none of these; LicenseRef- is its form for others.
    "apple-ascl": "LicenseRef-Apple-ASCL", "apple-amlr": "LicenseRef-Apple-AMLR",
    "dinov3-license": "LicenseRef-DINOv3", "dinov3 license": "LicenseRef-DINOv3",
    "nvidia-open-model-license": "LicenseRef-NVIDIA-Open-Model",
}  # fmt: skip
# Those that allow commercial use without further terms.
FREE = {
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "Unlicense",
}  # fmt: skip


def named(text: str) -> str:
    """Return a licence's name in its one spelling; a name that is not known stays as it is."""
    plain = text.strip().lower()
    spellings = {name.lower(): name for name in NAMES.values()}
    return NAMES.get(plain) or spellings.get(plain, text)
