"""Archives of arrays that somebody damaged or made to do harm, and networks that cannot be."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import network
from models.base import BadModel
from models.contract_networks import random_network
from models.network import write_npz
from models.untrusted import NPZ_MAX_BYTES
from tests.models.sentence import one_sentence

NETWORK = network.save(random_network(np.random.default_rng(1)))


def zipped(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return out.getvalue()


def npy(dtype: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (64 - (len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def bomb() -> bytes:
    """A megabyte that says what it is: more than any network."""
    return zipped({"layers.npy": npy("'|u1'", f"({NPZ_MAX_BYTES},)", bytes(NPZ_MAX_BYTES))})


def lying_bomb() -> bytes:
    """The same, but every size in it says that it is small."""
    content = bytearray(bomb())
    at = content.rindex(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 1000)
    content[22:26] = struct.pack("<I", 1000)
    return bytes(content)


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (bomb, "its arrays take 134217856 bytes, at most 134217728 are read"),
        (lying_bomb, "network.npz: it"),
        (lambda: zipped({"layers.npy": npy("'|i1'", "(2147483648,)")}), "needs 2147483648 bytes, 0 are there"),
        (lambda: zipped({"layers.npy": npy("'|i1'", "(99999999999, 99999999999)")}), "bytes, 0 are there"),
        (lambda: zipped({"layers.npy": npy("'|i1'", "(0, 99999999999, 99999999999)")}), "network.npz"),
        (lambda: zipped({"layers.npy": npy("'|O'", "(1,)", b"cos\nsystem\n(S'id'\ntR.")}), "is of type '|O'"),
        (lambda: zipped({"layers.npy": npy("__import__('os').system('id')", "(1,)", b"a")}), "is of type __import__"),
        (lambda: zipped({"layers.npy": npy("'<f8'", "(1,)", bytes(8))}), "is of type '<f8'"),
        (lambda: zipped({"../layers.npy": npy("'|u1'", "(1,)", b"a")}), "it has no array 'layers'"),
        (lambda: zipped({f"{i}.npy": b"" for i in range(5000)}), "more than 4096 arrays"),
        (lambda: zipped({"a\n.npy": b"junk"}), "no array as numpy writes it"),
        (lambda: zipped({}), "it has no array 'layers'"),
        (lambda: b"PK\x03\x04" + bytes(100), "it is damaged or no .npz file"),
        (lambda: b"", "it is damaged or no .npz file"),
    ],
)
def test_an_archive_that_would_hurt_is_refused(archive: Callable[[], bytes], sentence: str) -> None:
    content = archive()
    tracemalloc.start()
    with one_sentence(sentence):
        network.load(content, "network.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


ONE = np.ones(1, np.int32)
LARGE = 2**31 - 1


def conv(*numbers: int) -> dict[str, np.ndarray]:
    """A layer of one kernel with one weight."""
    return {
        "layers": np.frombuffer(b'["one"]', np.uint8),
        "0.w_in": np.ones((1, 1, 1, 1), np.int8),
        "0.k_u": 0 * ONE,
        "0.k_v": 0 * ONE,
        "0.bias": 0 * ONE,
        "0.v_th": ONE,
        "0.conv": np.array(numbers, np.int32),
    }


GOOD = conv(1, 1, 1, 1, 1, 0, 0)


def twice(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With a second layer like the first."""
    return {**arrays, **{f"1{name[1:]}": array for name, array in arrays.items() if name[0] == "0"}}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (conv(1, 3000, 3000, 3000, 3000, 0, 0), "expected 4194304 at most"),
        (conv(1, 1, 1, LARGE, LARGE, LARGE - 1, LARGE - 1), "expected 134217728 at most"),
        (conv(1, 1, 1, 0, 0, 0, 0), "make no sense"),
        (conv(1, -1, -1, 1, 1, 0, 0), "make no sense"),
        (conv(1, 1, 1), "a convolution is seven int32"),
        ({**GOOD, "0.conv": np.ones(7, np.int64)}, "a convolution is seven int32"),
        ({**GOOD, "0.w_in": np.ones((1, 1, 1, 1), np.int32)}, "its array '0.w_in' is of int32, expected int8"),
        ({**GOOD, "0.w_in": np.ones((1, 1), np.int8)}, "expected 4 dimensions"),
        ({**GOOD, "0.k_v": np.array([4097], np.int32)}, "k_v must lie in 0..4096"),
        ({**GOOD, "0.v_th": np.array([0], np.int32)}, "v_th must lie in 1.."),
        ({**GOOD, "0.v_th": np.ones(2, np.int32)}, "v_th has shape (2,), expected (1,)"),
        ({**GOOD, "1.k_u": ONE}, "it has an array '1.k_u' of no layer"),
        ({**GOOD, "layers": np.frombuffer(b'["one", "two"]', np.uint8)}, "it has no array '1.w_in'"),
        ({**GOOD, "layers": np.frombuffer(b'{"one": 1}', np.uint8)}, "its layers must be 1 to 256 names"),
        ({**GOOD, "layers": np.frombuffer(b"[1]", np.uint8)}, "its layers must be 1 to 256 names"),
        ({**GOOD, "layers": np.frombuffer(b"[]", np.uint8)}, "its layers must be 1 to 256 names"),
        ({**GOOD, "layers": np.frombuffer(b"[[]]", np.uint8)}, "its layers must be 1 to 256 names"),
        ({**GOOD, "layers": np.frombuffer(b"[[1]]", np.uint8)}, "its layers must be 1 to 256 names"),
        ({**GOOD, "layers": np.frombuffer(b'[[["one"]]]', np.uint8)}, "its layers must be 1 to 256 names"),
        ({**GOOD, "layers": np.frombuffer(b'[[%s"x"]]' % (b'"x",' * 256), np.uint8)}, "its layers must be 1 to 256"),
        ({**GOOD, "layers": np.frombuffer(b'[["one", "two"]]', np.uint8)}, "it has no array '1.w_in'"),
        ({**twice(GOOD), "layers": np.frombuffer(b'[["one", "two"]]', np.uint8)}, "cannot stand beside another one"),
        ({**GOOD, "layers": np.frombuffer(b"[" * 9999, np.uint8)}, "nested too deeply"),
        ({**GOOD, "layers": np.frombuffer(b"\xff", np.uint8)}, "not an integer network"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arrays: dict[str, np.ndarray], sentence: str) -> None:
    network.load(write_npz(GOOD), "network.npz")
    with one_sentence(sentence):
        network.load(write_npz(arrays), "network.npz")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=4))
def test_a_damaged_network_is_whole_or_refused(at: int, other: bytes) -> None:
    content = bytearray(NETWORK)
    at %= len(content)
    content[at : at + len(other)] = other
    try:
        found = network.load(bytes(content), "network.npz")
    except BadModel as error:
        assert str(error).isprintable()
    else:
        network.check(found)
