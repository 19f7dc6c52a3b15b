"""Everything that is compiled for a bundle, by file name. Needs the extra ``build``."""

from models.backends.onnx import STEP, WINDOW
from models.compile import onnx, tflite
from models.compile.tflite_layout import FILE
from models.network import Network


def artefacts(network: Network) -> dict[str, bytes]:
    """The same network gives the same bytes."""
    files = {STEP: onnx.compile_step(network), FILE: tflite.compile_step(network)}
    if all(layer.conv is None for layer in network.layers):
        # A convolution is slower inside ONNX Runtime's loop than outside of it.
        files[WINDOW] = onnx.compile_window(network)
    return files
