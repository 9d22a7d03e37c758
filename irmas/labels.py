"""The 11 instrument classes of IRMAS, in the data set's own order (Bosch et al., ISMIR 2012)."""

INSTRUMENTS: dict[str, str] = {
    "cel": "cello",
    "cla": "clarinet",
    "flu": "flute",
    "gac": "acoustic guitar",
    "gel": "electric guitar",
    "org": "organ",
    "pia": "piano",
    "sax": "saxophone",
    "tru": "trumpet",
    "vio": "violin",
    "voi": "voice",
}
"""Three-letter code (folder and file names) -> name in words."""

CODES: tuple[str, ...] = tuple(INSTRUMENTS)
"""The codes in alphabetical order: a class's index is its place here."""
