"""Everything that is compiled for a bundle, by file name. Needs the extra ``build``."""

from models.backends.onnx import STEP, WINDOW
from models.compile import onnx, tflite
from models.compile.tflite_layout import FILE
from models.network import Network


def artefacts(network: Network) -> dict[str, bytes]:
    """The same network gives the same bytes."""
    return {
        STEP: onnx.compile_step(network),
        WINDOW: onnx.compile_window(network),
        FILE: tflite.compile_step(network),
    }
