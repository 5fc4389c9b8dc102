"""Protobuf messages that read OTLP item by item.

They are compatible with the official ones on the wire and differ in three ways. Spans and log records stay bytes until they
are looked at, so that a broken one is refused alone, and foreign ones are recognized by a search in the bytes. Text is read
as bytes, for one value that is no UTF-8 would otherwise spoil the whole body. And only the fields that a step event can hold,
or a rule may ask for, are there.
Traces and logs number their outer fields alike, so one set of outer messages serves both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE: Final = "failpath.otlp"

# Message → its fields: name, number, type; a trailing "*" marks a repeated field, a capital letter another message.
FIELDS: Final[Mapping[str, tuple[tuple[str, int, str], ...]]] = {
    "Request": (("groups", 1, "Group*"),),
    "Group": (("resource", 1, "Resource"), ("scopes", 2, "Scope*")),
    "Scope": (("scope", 1, "bytes"), ("items", 2, "bytes*")),
    "InstrumentationScope": (("name", 1, "bytes"),),
    "Resource": (("attributes", 1, "bytes*"),),
    "Span": (
        ("trace_id", 1, "bytes"),
        ("span_id", 2, "bytes"),
        ("parent_span_id", 4, "bytes"),
        ("name", 5, "bytes"),
        ("kind", 6, "int32"),
        ("start_time_unix_nano", 7, "fixed64"),
        ("end_time_unix_nano", 8, "fixed64"),
        ("attributes", 9, "KeyValue*"),
        ("events", 11, "Event*"),
        ("status", 15, "Status"),
    ),
    "Event": (("name", 2, "bytes"), ("attributes", 3, "KeyValue*")),
    "Status": (("message", 2, "bytes"), ("code", 3, "int32")),
    "LogRecord": (
        ("time_unix_nano", 1, "fixed64"),
        ("attributes", 6, "KeyValue*"),
        ("trace_id", 9, "bytes"),
        ("span_id", 10, "bytes"),
        ("observed_time_unix_nano", 11, "fixed64"),
        ("event_name", 12, "bytes"),
    ),
    "KeyValue": (("key", 1, "bytes"), ("value", 2, "AnyValue")),
    "AnyValue": (
        ("string_value", 1, "bytes"),
        ("bool_value", 2, "bool"),
        ("int_value", 3, "int64"),
        ("double_value", 4, "double"),
        ("array_value", 5, "ArrayValue"),
        ("kvlist_value", 6, "KeyValueList"),
        ("bytes_value", 7, "bytes"),
    ),
    "ArrayValue": (("values", 1, "AnyValue*"),),
    "KeyValueList": (("values", 1, "KeyValue*"),),
}

_ONEOF: Final = "AnyValue"
_TYPES: Final = {
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "fixed64": FieldDescriptorProto.TYPE_FIXED64,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
}


def _build() -> Mapping[str, Any]:
    file = FileDescriptorProto(name="failpath/otlp.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in FIELDS.items():
        message = file.message_type.add(name=message_name)
        if message_name == _ONEOF:
            message.oneof_decl.add(name="value")
        for name, number, kind in fields:
            base, repeated, _ = kind.partition("*")
            field = message.field.add(name=name, number=number)
            field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            if base in _TYPES:
                field.type = _TYPES[base]
            else:
                field.type = FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{base}"
            if message_name == _ONEOF:
                field.oneof_index = 0
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in FIELDS}


_MESSAGES: Final = _build()

# These classes are made at run time, so type checkers cannot know their fields.
Request: Final[Any] = _MESSAGES["Request"]
InstrumentationScope: Final[Any] = _MESSAGES["InstrumentationScope"]
Span: Final[Any] = _MESSAGES["Span"]
LogRecord: Final[Any] = _MESSAGES["LogRecord"]
KeyValue: Final[Any] = _MESSAGES["KeyValue"]
