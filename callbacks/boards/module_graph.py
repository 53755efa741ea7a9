"""Module graph for TensorBoard's graph tab, where parts of the network are boxes that open at a click."""

from tensorboard.compat.proto.attr_value_pb2 import AttrValue  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.graph_pb2 import GraphDef  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.node_def_pb2 import NodeDef  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.tensor_shape_pb2 import (
    TensorShapeProto,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboard.compat.proto.versions_pb2 import VersionDef  # pyright: ignore[reportAttributeAccessIssue]

from fulgurite.callbacks.framework.artifacts import Graph


def graph_def(graph: Graph) -> GraphDef:
    """The graph as TensorBoard reads it; a module's path with slashes for dots is a path of boxes."""
    nodes = [
        NodeDef(
            name=node.path.replace(".", "/"),
            op=node.kind,
            input=[name.replace(".", "/") for name in node.inputs],
            attr={"_output_shapes": _shapes(node.shape)},
        )
        for node in graph.nodes
    ]
    return GraphDef(node=nodes, versions=VersionDef(producer=22))


def _shapes(shape: tuple[int, ...]) -> AttrValue:
    sides = [TensorShapeProto.Dim(size=side) for side in shape]
    return AttrValue(list=AttrValue.ListValue(shape=[TensorShapeProto(dim=sides)]))
