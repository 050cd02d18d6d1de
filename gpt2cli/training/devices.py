"""Which device the work runs on."""

from __future__ import annotations

import tensorflow as tf


def prepare() -> str:
    """Lets TensorFlow take GPU memory as it needs it; returns a name of the device used."""
    devices = tf.config.list_physical_devices("GPU")
    for device in devices:
        tf.config.experimental.set_memory_growth(device, True)
    if not devices:
        return f"CPU ({tf.config.threading.get_intra_op_parallelism_threads() or 'all'} threads)"
    return str(tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU"))
