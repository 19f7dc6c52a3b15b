"""Free Spoken Digit Dataset: five speakers, recordings 2 to 49 of each digit, one archive for each speaker."""

from itertools import product

from models.datasets.audio import read_wav
from models.datasets.public.content import Files, table, take

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "yweweler")
INDEXES = range(2, 50)
"""0 and 1 are held out; so is the speaker theo."""
FIRST_OF_TRAIN = 5
"""The source calls 0 to 4 its test part."""
FOLDER = "recordings/"
NAMES = tuple(sorted(f"{digit}_{who}_{index}.wav" for digit, who, index in product(range(10), SPEAKERS, INDEXES)))
_PATHS = frozenset(FOLDER + name for name in NAMES)


def wants(path: str) -> bool:
    """Whether the file is one of the dataset's recordings."""
    return path in _PATHS


def remake(found: Files) -> dict[str, bytes]:
    """The dataset, of its recordings as they are at the source. Raises DataError."""
    files, rows = {}, []
    for name, content in zip(NAMES, take(found, [FOLDER + name for name in NAMES]), strict=True):
        digit, speaker, index = name.removesuffix(".wav").split("_")
        samples, _ = read_wav(content, name)
        files[f"{speaker}.tar.xz/{name}"] = content
        rows.append((name, digit, speaker, index, len(samples), "train" if int(index) >= FIRST_OF_TRAIN else "test"))
    return {**files, "manifest.csv": table("file,digit,speaker,index,n_samples,split", rows)}
