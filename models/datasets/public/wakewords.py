"""Wake words of the Picovoice benchmark: 32 recordings of each, renamed, as WAV files of nothing but sound."""

import io

import numpy as np
import numpy.typing as npt

from models.datasets.audio import read_wav
from models.datasets.public.content import Files, table, wav
from models.datasets.recording import DataError

FOLDER = "audio/"
MOST_SAMPLES = 10 * 16000
"""A FLAC file of silence is a bomb as well."""
CHOSEN = {
    "alexa": """
        0 104 110 117 133 14 148 154 167 173 18 186 199 204 210 217 230 237 243 25 262 269 279 285 298 303 31 316 36 42
        49 55
    """,
    "computer": """
        0386da81 0d3eb5cb 126e9c04 161cf6e6 1e9a8664 2321529c 292e237d 2d864b39 39832a2e 430d2afa 4bcb9e52 4fa235d5
        5ba4e565 60ad0cd0 699a2f7b 6d8844ac 79b6453b 7f091d70 846e1f9b 88746789 94f967f8 9c07d435 a248b3c4 aa8e2b1a
        b4e6ac85 bd327df1 c0c359fd c897cfd5 d6e935ec dacbaee0 e2d6717b eb29c7b3
    """,
    "jarvis": """
        008a6329 03efb4a6 0910b8f1 0eaa1c84 1dd67e92 210b5eb1 24e11c9f 280d09b7 35bd060d 3d9eb38c 41ff962d 496086da
        54a6add7 5907df93 5fb5791e 65ed68f5 7074a8b1 78161073 7e139bd8 83b04c9d 91b14974 9761fc89 a1d9737b a6762fe6
        b0746a97 b4a52157 bb5136d3 bfde5cb3 cf90d24e d5fb117a de50fc96 e2eaadfa
    """,
    "smart_mirror": """
        007b3f76 082eab86 0d80e328 17a51783 2684ec48 2dc9692b 317558a4 3a1e9cab 46f27afa 4df6ae39 569e7520 5b35c919
        69fbfa18 6de96bc0 77efc2dd 7fe67fc0 89db4cc7 8e8a6bee 94035365 9782acd8 a11c94b6 a8647bc7 af9dd7aa ba648cfd
        c345cae5 c8d4a4e6 cc28a11b d226cd36 d8cf2335 e271b5e3 e7d76bf8 ed9eb2fd
    """,
    "snowboy": """
        00927c6f 066f43c7 0ef79cb3 19aaaf8d 29f8750d 2f4501a9 33279bc1 3ac67c7d 42d9472e 46b682bf 4a126fc4 4f2f15c5
        5923fa6d 65984519 6d99c5b7 7240ce9a 7e76c5c5 82161661 8b5619bd 94c2e33c 9ba7a378 9ecab3c0 a4b7b54d ac399f2a
        ba8fd9e1 bfed46e5 c6b6f63d cb9b5f98 d6f1522e de54c55d eb589231 f3fc17b5
    """,
    "view_glass": """
        003bc806 056ee638 0b43965b 10a4e8ed 16c227cf 1c9e8ff4 23ce4693 29253aee 302d1f46 33d40e13 38f45efc 3dcd4e98
        450707b2 49a4d39c 518f290d 5a461329 61314f64 6548899d 68e347e8 70fff6b8 7973fec3 862ca5b1 8bd49a24 91f73f43
        9f1cbdf2 a8f1777d b182d927 b88eed5d c8f9b5fd cc33dad2 d160547f d740c25d
    """,
}
"""What the names of the chosen recordings begin with, up to the first ``-`` or ``.``, in their order. Of 40 of each
word every fifth is held out: its number is not given to another."""
_WANTED = frozenset((word.replace("_", " "), head) for word, heads in CHOSEN.items() for head in heads.split())


def wants(path: str) -> bool:
    """Whether the file is one of the dataset's recordings."""
    return path.startswith(FOLDER) and _key(path) in _WANTED


def remake(found: Files) -> dict[str, bytes]:
    """The dataset, of its recordings as they are at the source. Raises DataError."""
    paths = {_key(path): path for path in sorted(found)}
    missing = sorted(_WANTED - paths.keys())
    if missing:
        raise DataError(
            f"has no {FOLDER}{'/'.join(missing[0])}* ({len(missing)} of {len(_WANTED)} files are missing); "
            "it is another archive, or another version"
        )
    files, rows = {}, []
    for word, heads in CHOSEN.items():
        for place, head in enumerate(heads.split()):
            number = place + place // 4
            path = paths[word.replace("_", " "), head]
            samples, rate_hz = _sound(found[path], path)
            name = f"{word}_{number:02}.wav"
            files[f"{word}.tar.xz/{name}"] = wav(samples, rate_hz)
            split = "test" if number % 5 == 3 else "train"
            rows.append((name, word, path.rpartition("/")[2], len(samples), split))
    return {**files, "manifest.csv": table("file,keyword,source_file,n_samples,split", rows)}


def _key(path: str) -> tuple[str, str]:
    folder, _, name = path.removeprefix(FOLDER).partition("/")
    return folder, name.partition(".")[0].partition("-")[0]


def _sound(content: bytes, path: str) -> tuple[npt.NDArray[np.int16], int]:
    if not path.endswith(".flac"):
        samples, rate_hz = read_wav(content, path)
        return samples[:, 0], round(rate_hz)
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.channels != 1 or file.subtype != "PCM_16" or not 0 < file.frames <= MOST_SAMPLES:
                raise DataError(f"{path}: expected one channel of 16 bits and at most {MOST_SAMPLES} samples")
            return file.read(file.frames, dtype="int16"), int(file.samplerate)
    except soundfile.SoundFileError as error:
        raise DataError(f"{path}: not a FLAC file ({error})") from error
