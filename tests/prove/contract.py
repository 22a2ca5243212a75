"""The messages and methods of the contract, compiled from proto/ when they are first asked for."""

from __future__ import annotations

import functools
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from program import ROOT

PACKAGE = "profiles.v1"


@functools.cache
def pool() -> descriptor_pool.DescriptorPool:
    """All descriptors of the contract."""
    includes = [f"-I{ROOT / 'proto'}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    files = [str(file) for file in sorted((ROOT / "proto/profiles/v1").glob("*.proto"))]
    with tempfile.NamedTemporaryFile() as out:
        if protoc.main(["protoc", *includes, "--include_imports", f"--descriptor_set_out={out.name}", *files]):
            raise RuntimeError("the contract does not compile")
        compiled = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes())
    descriptors = descriptor_pool.DescriptorPool()
    for file in compiled.file:  # each after those that it imports
        descriptors.Add(file)
    return descriptors


@functools.cache
def message(name: str):
    """A class of messages, such as `Profile`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def method(channel, name: str):
    """What calls a method, such as `ProfileService/CreateProfile`, over a channel."""
    service, _, short = name.partition("/")
    descriptor = pool().FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(short)
    kind = channel.unary_stream if descriptor.server_streaming else channel.unary_unary
    return kind(
        f"/{PACKAGE}.{name}",
        request_serializer=message_factory.GetMessageClass(descriptor.input_type).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString,
    )
