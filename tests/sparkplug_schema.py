"""Sparkplug B's payload for Google's protobuf runtime: what tests read and write with, apart from axond's own encoder.

Names, numbers and kinds of fields are those of Eclipse Tahu's ``sparkplug_b.proto`` (proto2); of its messages there are
the two that nodes without data sets, templates and properties use.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_METRIC = (
    ("name", 1, _Field.TYPE_STRING),
    ("alias", 2, _Field.TYPE_UINT64),
    ("timestamp", 3, _Field.TYPE_UINT64),
    ("datatype", 4, _Field.TYPE_UINT32),
    ("is_historical", 5, _Field.TYPE_BOOL),
    ("is_transient", 6, _Field.TYPE_BOOL),
    ("is_null", 7, _Field.TYPE_BOOL),
)
_VALUE = (
    ("int_value", 10, _Field.TYPE_UINT32),
    ("long_value", 11, _Field.TYPE_UINT64),
    ("float_value", 12, _Field.TYPE_FLOAT),
    ("double_value", 13, _Field.TYPE_DOUBLE),
    ("boolean_value", 14, _Field.TYPE_BOOL),
    ("string_value", 15, _Field.TYPE_STRING),
    ("bytes_value", 16, _Field.TYPE_BYTES),
)
_PAYLOAD = (
    ("timestamp", 1, _Field.TYPE_UINT64),
    ("seq", 3, _Field.TYPE_UINT64),
    ("uuid", 4, _Field.TYPE_STRING),
    ("body", 5, _Field.TYPE_BYTES),
)


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The part of the schema, as protoc would compile it."""
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="org.eclipse.tahu.protobuf")
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    for name, number, kind in _METRIC:
        metric.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL)
    metric.oneof_decl.add(name="value")
    for name, number, kind in _VALUE:
        metric.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL, oneof_index=0)
    for name, number, kind in _PAYLOAD:
        payload.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL)
    payload.field.add(
        name="metrics",
        number=2,
        type=_Field.TYPE_MESSAGE,
        type_name=".org.eclipse.tahu.protobuf.Payload.Metric",
        label=_Field.LABEL_REPEATED,
    )
    return file


def _payload_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file_descriptor())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("org.eclipse.tahu.protobuf.Payload"))


Payload = _payload_class()
"""``Payload()``, ``Payload.FromString(data)``, ``payload.metrics.add(name=...)``, ``payload.SerializeToString()``."""


def values(payload: Any) -> dict[str, Any]:
    """The metrics by name; None is null. Fails on a name that is there twice."""
    found: dict[str, Any] = {}
    for metric in payload.metrics:
        if metric.name in found:
            raise AssertionError(f"metric {metric.name} is there twice")
        kind = metric.WhichOneof("value")
        found[metric.name] = None if metric.is_null else getattr(metric, kind)
    return found
