"""Train the small int8 CNN that a user would otherwise pick, and convert it to TFLite. Runs where TensorFlow is.

``python hil/compare/cnn.py FEATURES.npz OUT.tflite``: a stand-alone program, since TensorFlow (1.6 GB) is in an
environment of its own (``make compare``). DS-CNN as in Zhang et al., Hello Edge (2017), the keyword network of MLPerf
Tiny: a convolution, four depthwise-separable blocks of 64 channels, global average, dense; full-integer quantisation.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

CHANNELS = 64
BLOCKS = 4
EPOCHS = 15
BATCH = 128
PEAK_RATE = 2e-3
SEED = 1
CALIBRATION = 300


def network(shape: tuple[int, ...], classes: int) -> tf.keras.Model:
    """``shape`` (rows, columns, channels); a series of one column gets kernels of one column."""
    rows, columns, _ = shape
    wide = 1 if columns == 1 else 3
    stride = (2, 1 if columns == 1 else 2) if rows >= 16 else (1, 1)
    layers = tf.keras.layers
    x = inputs = layers.Input(shape)
    x = layers.Conv2D(CHANNELS, (min(rows, 10), 1 if columns == 1 else 4), stride, "same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.2)(x)
    for _ in range(BLOCKS):
        x = layers.DepthwiseConv2D((3, wide), padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(CHANNELS, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(inputs, layers.Dense(classes)(x))


def main(source: Path, out: Path) -> None:
    tf.keras.utils.set_random_seed(SEED)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    with np.load(source) as archive:
        x, y = archive["x_train"].astype(np.float32), archive["y_train"]
        classes = int(archive["classes"])
    model = network(x.shape[1:], classes)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        PEAK_RATE / 10, steps, warmup_target=PEAK_RATE, warmup_steps=steps // 10
    )
    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.05)
    model.compile(tf.keras.optimizers.AdamW(schedule, weight_decay=1e-3), loss, metrics=["accuracy"])
    model.fit(x, tf.one_hot(y, classes), batch_size=BATCH, epochs=EPOCHS, verbose=2)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    some = x[:: max(1, len(x) // CALIBRATION)]
    converter.representative_dataset = lambda: ([one[None]] for one in some)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    out.write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
