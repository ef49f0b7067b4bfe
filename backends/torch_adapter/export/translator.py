"""Translation of a graph of ``torch.export`` into the operations of a Blueprint."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from backends.torch_adapter.export import rearrange
from backends.torch_adapter.export.rearrange import Attributes, Shape
from backends.torch_adapter.export.translations import (
    COPIES,
    ELEMENTWISE,
    GETITEM,
    IDENTITIES,
    PLAIN,
    REARRANGING,
    Arguments,
    Untranslatable,
    demand,
    named_arguments,
)
from backends.torch_adapter.export.user_code import line_of_code
from bench.errors import UserError
from bench.network.blueprint import INPUT, Operation, OperationKind

ROLES = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Value:
    """The result of a node: a value of the Blueprint, or a parameter, perhaps rearranged."""

    name: str
    """Name of the Blueprint's value, or of the parameter."""
    shape: Shape
    """Shape of that value without the batch, or of the parameter."""
    index: Tensor | None = None
    """If rearranged: for each element, its index in the value ``name``, batch included."""
    node: fx.Node | None = None
    """The last node that rearranged it."""
    is_parameter: bool = False

    def numbers(self) -> Tensor:
        """Return ``index``, also if nothing is rearranged."""
        if self.index is not None:
            return self.index
        return rearrange.numbered(self.shape if self.is_parameter else (2, *self.shape))


Composition = Callable[["Translator", fx.Node, Arguments], Value]
"""(translator, node, its arguments by name) → the node's value."""


class Translator:
    """Translator of one exported program, whose example has a batch of 2."""

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        name: str,
        compositions: Mapping[str, Composition],
    ) -> None:
        """
        Args:
            program: In evaluation form.
            name: Name of the backbone, for messages.
            compositions: ATen operators that no table translates → function that writes them down.
        """
        self._compositions = compositions
        self._graph = program.graph_module.graph
        self._name = name
        signature = program.graph_signature
        self.parameters = dict(signature.inputs_to_parameters)
        self.tensors = {**self.parameters, **signature.inputs_to_buffers}
        stored = {**program.state_dict, **program.constants}
        constants = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        self._constants: dict[str, Tensor] = {
            node: tensor
            for node, name in constants.items()
            if isinstance(tensor := stored.get(name), Tensor)
        }
        self._values: dict[str, Value | tuple[Value, ...]] = {}
        self._settled: dict[tuple[str, str], Value] = {}
        self.operations: list[Operation] = []
        self.left_out = ""
        """Why the end of the network was left out; empty if it was not."""
        for node in self._graph.nodes:
            if node.op == "placeholder" and node.name in signature.user_inputs:
                self._values[node.name] = Value(INPUT, tuple(node.meta["val"].shape[1:]))
            elif node.name in self.parameters:
                shape = tuple(node.meta["val"].shape)
                name = self.parameters[node.name]
                self._values[node.name] = Value(name, shape, is_parameter=True)

    def translate(self, is_trunk: Callable[[str], bool]) -> list[Operation]:
        """Return the operations that the network's output depends on, in order. If an operation
        after the trunk has no counterpart in a Blueprint, the rest of the network is left out, and
        ``left_out`` is the reason.

        Args:
            is_trunk: Returns True for the path of a module of the trunk.

        Raises:
            UserError: An operation of the trunk has no counterpart in a Blueprint.
        """
        nodes = [node for node in self._graph.nodes if node.op in ("call_function", "output")]
        trunk_end = max((i for i, n in enumerate(nodes) if is_trunk(module_path(n))), default=-1)
        for index, node in enumerate(nodes):
            try:
                if node.op == "call_function":
                    self._guarded(node, self._add_value)
                else:
                    outputs = [a for a in node.args[0] if isinstance(a, fx.Node)]
                    self._guarded(outputs[0], self._finish)
            except UserError as error:
                if index <= trunk_end or not self.operations:
                    raise
                self.left_out = error.message
                break
        return self.operations

    def read_by_rest(self) -> set[str]:
        """Return the names of the values that the nodes without a value of their own read."""
        calls = [node for node in self._graph.nodes if node.op == "call_function"]
        read = {i.name for n in calls if n.name not in self._values for i in n.all_input_nodes}
        values = [self._values[name] for name in read if name in self._values]
        return {v.name for v in values if isinstance(v, Value) and not v.is_parameter}

    def _add_value(self, node: fx.Node) -> None:
        self._values[node.name] = self._translate_node(node)

    def _finish(self, node: fx.Node) -> None:
        """Make ``node`` the last operation, and drop all operations that it does not depend on."""
        self.operations = self.needed_for({self.settled(self.value(node)).name}, self.operations)

    @staticmethod
    def needed_for(values: set[str], operations: Sequence[Operation]) -> list[Operation]:
        """Return the operations that these values depend on, in order."""
        needed = set(values)
        kept = []
        for operation in reversed(operations):
            if operation.name in needed:
                needed.update(operation.inputs)
                kept.append(operation)
        return kept[::-1]

    def _guarded(self, node: fx.Node, act: Callable[[fx.Node], None]) -> None:
        try:
            act(node)
        except Untranslatable as error:
            reason = f": {error}" if str(error) else ""
            culprit = error.node or node
            places = re.findall(r'File "(.+?)", line (\d+)', culprit.meta.get("stack_trace") or "")
            raise UserError(
                f"{self._name} cannot be rebuilt{line_of_code(places)}: operation {culprit.target} "
                f"(module '{module_path(culprit)}') has no counterpart in a Blueprint{reason}."
            ) from error

    def _translate_node(self, node: fx.Node) -> Value | tuple[Value, ...]:
        target = str(node.target)
        if target == GETITEM:
            source, position = node.args
            assert isinstance(source, fx.Node)
            assert isinstance(position, int)
            several = self._values[source.name]
            demand(isinstance(several, tuple), "it takes a part of one value")
            assert isinstance(several, tuple)
            return replace(several[position], node=node)
        if target in REARRANGING:
            return self._rearranged(node)
        arguments = named_arguments(node)
        if target in COPIES and arguments["self"].name in self._constants:
            self._constants[node.name] = self._constants[arguments["self"].name]
            return Value(node.name, (), is_parameter=True)
        if target in IDENTITIES or _changes_nothing(target, arguments):
            return self.value(arguments.get("self", arguments.get("input")))
        if target in PLAIN:
            x = self.settled(self.value(arguments.get("self", arguments.get("input"))))
            demand(len(x.shape) == 3, "its input is not an image")
            kind, attributes = PLAIN[target](arguments)
            shape = x.shape if kind in ("dropout", "prelu") else None
            return self.emit(node, kind, [x], attributes, self.roles(arguments), shape=shape)
        if target in ELEMENTWISE:
            x = self.settled_or_as_is(self.value(arguments.get("self", arguments.get("input"))))
            kind, attributes = ELEMENTWISE[target](arguments)
            return self.emit(node, kind, [x], attributes, shape=x.shape, like=x)
        if target not in self._compositions:
            raise Untranslatable
        return self._compositions[target](self, node, arguments)

    def value(self, argument: Any) -> Value:
        """Return the value of a node's argument.

        Raises:
            Untranslatable: The argument is not one value or parameter.
        """
        found = self._values.get(argument.name) if isinstance(argument, fx.Node) else None
        demand(isinstance(found, Value), f"it reads {argument}")
        assert isinstance(found, Value)
        return found

    def is_value(self, node: fx.Node) -> bool:
        """Return True if a node is one value of the network, neither a parameter nor a constant."""
        found = self._values.get(node.name)
        return isinstance(found, Value) and not found.is_parameter

    def constant(self, argument: Any, like: Value) -> float | list[float] | None:
        """Return an operand that is a number, or a buffer or constant tensor that is neither
        trained nor a statistic; None if it is something else.

        Args:
            like: The value that it is combined with.

        Returns:
            A number, or a list with one for each feature.

        Raises:
            Untranslatable: It differs between positions.
        """
        if isinstance(argument, int | float):
            return float(argument)
        tensor = self._constants.get(argument.name) if isinstance(argument, fx.Node) else None
        if tensor is None or tensor.is_meta:
            return None
        if tensor.numel() == 1:
            return float(tensor)
        demand(like.index is None, "it combines a constant with a rearranged value")
        axis = 1 if len(like.shape) == 3 else len(like.shape)
        placed = tensor.reshape((1,) * (len(like.shape) + 1 - tensor.ndim) + tuple(tensor.shape))
        demand(placed.shape[axis] == placed.numel() == [0, *like.shape][axis],
               "its constant is not one number for each feature")  # fmt: skip
        return [float(number) for number in placed.flatten()]

    def roles(self, arguments: Arguments) -> dict[str, str]:
        """Return role → name for the arguments that are stored tensors.

        Raises:
            Untranslatable: One is computed, or a constant that is neither trained nor a statistic.
        """
        roles = {}
        for role in ROLES:
            argument = arguments.get(role)
            if not isinstance(argument, fx.Node):
                continue
            named = self.parameters if role in ("weight", "bias") else self.tensors
            demand(argument.name in named, f"its {role} is not a parameter")
            roles[role] = named[argument.name]
        return roles

    def emit(
        self,
        node: fx.Node,
        kind: OperationKind,
        inputs: Sequence[Value],
        attributes: Attributes | None = None,
        tensors: dict[str, str] | None = None,
        shape: Shape | None = None,
        like: Value | None = None,
        name: str | None = None,
    ) -> Value:
        """Write down an operation and return its value.

        Args:
            node: The node it comes from.
            inputs: Values it reads in the Blueprint's order, whatever their ``index``.
            tensors: Role → name.
            shape: Shape of its value; None for the node's.
            like: A value whose rearrangement the new value keeps.
            name: Name of the operation; None for the node's.
        """
        demand(not any(v.is_parameter for v in inputs), "it computes with a parameter alone")
        name = name or node.name
        shape = tuple(node.meta["val"].shape[1:]) if shape is None else shape
        demand(1 <= len(shape) <= 3, f"its value has the shape {shape}")
        self.operations.append(
            Operation(
                name=name,
                kind=kind,
                inputs=tuple(v.name for v in inputs),
                attributes=attributes or {},
                tensors=tensors or {},
                shape=shape,
                module_path=module_path(node),
                stage="",
            )
        )
        index, source = (None, None) if like is None else (like.index, like.node)
        return Value(name, shape, index, source)

    def _rearranged(self, node: fx.Node) -> Value | tuple[Value, ...]:
        """Rearrange the node's input, together with earlier rearrangements where possible."""
        source = self.value(node.args[0])
        made = _apply(node, source)
        if source.index is None or source.is_parameter or _is_known(made):
            return made
        settled = self.settled_or_as_is(source)
        again = _apply(node, settled) if settled.index is None else made
        return again if _is_known(again) else made

    def settled(self, value: Value) -> Value:
        """Write down a value's rearrangement as an operation.

        Raises:
            Untranslatable: There is no such operation.
        """
        found = self.settled_or_as_is(value)
        if found.index is not None:
            target = tuple(found.index.shape[1:])
            raise Untranslatable(f"it rearranges {found.shape} into {target}", found.node)
        return found

    def settled_or_as_is(self, value: Value) -> Value:
        """Write down a value's rearrangement as an operation, if there is one."""
        if value.index is None or value.is_parameter:
            return value
        assert value.node is not None
        found = rearrange.recognise(value.index, value.shape)
        if found is None:
            return value
        kind, attributes = found
        shape = tuple(value.index.shape[1:])
        key = (value.node.name, value.name)
        if key not in self._settled:
            source = replace(value, index=None)
            self._settled[key] = self.emit(value.node, kind, [source], attributes, shape=shape)
        return self._settled[key]

    def rows(self, value: Value) -> tuple[Value, Tensor | None]:
        """Return a value for an operation along its features.

        Returns:
            The value, settled if possible; if not, also the order of its feature vectors for
            ``reordered``.

        Raises:
            Untranslatable: The node's last axis is not the features.
        """
        value = self.settled_or_as_is(value)
        if value.index is None and len(value.shape) < 3:
            return value, None
        rows = rearrange.positions(value.numbers(), value.shape)
        demand(rows is not None, "it works along another axis than the features")
        return value, rows

    def reordered(self, value: Value, rows: Tensor | None, like: Value) -> Value:
        """Give a value's feature vectors the order that ``rows`` returned for ``like``."""
        if rows is None:
            return value
        index = rearrange.from_positions(rows, value.shape)
        whole = value.numbers()
        same = index.shape == whole.shape and torch.equal(index, whole)
        return replace(value, index=None if same else index, node=like.node)


def module_path(node: fx.Node) -> str:
    """Return the path of the innermost module in which a node was called."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""


def broadcast_shape(parameter: Value, value: Value, node: fx.Node) -> Shape:
    """Return the shape that broadcasts a parameter to a value in the Blueprint's order, such as
    (C, 1, 1).

    Args:
        node: The node that computes with both.

    Raises:
        Untranslatable: There is none.
    """
    result = tuple(node.meta["val"].shape)
    numbers = value.numbers()
    demand(tuple(numbers.shape) == result, "the parameter is larger than the value")
    spread = parameter.numbers().expand(result)
    placed = torch.empty(2 * math.prod(value.shape), dtype=torch.long)
    demand(numbers.numel() == placed.numel(), "it reads a part of a value")
    placed[numbers.flatten()] = spread.flatten()
    placed = placed.reshape(2, *value.shape)
    for axis in range(placed.ndim):
        first = placed.narrow(axis, 0, 1)
        if torch.equal(first.expand_as(placed), placed):
            placed = first
    shape = tuple(placed.shape[1:])
    in_order = rearrange.numbered((math.prod(parameter.shape),))
    demand(placed.shape[0] == 1 and torch.equal(placed.flatten(), in_order),
           "it broadcasts a rearranged parameter")  # fmt: skip
    return shape


def _apply(node: fx.Node, source: Value) -> Value | tuple[Value, ...]:
    """Run a rearranging node on the indices of its source's elements."""
    demand(not any(isinstance(a, fx.Node) for a in node.args[1:]), "its sizes are computed")
    results = node.target(source.numbers(), *node.args[1:], **node.kwargs)  # type: ignore[operator]

    def made(index: Tensor) -> Value:
        same = torch.equal(index, replace(source, index=None).numbers())
        return replace(source, index=None if same else index.contiguous(), node=node)

    return made(results) if isinstance(results, Tensor) else tuple(made(i) for i in results)


def _is_known(made: Value | tuple[Value, ...]) -> bool:
    """Return True if each value is an operation's, or one operation away."""
    values = (made,) if isinstance(made, Value) else made
    return all(v.index is None or rearrange.recognise(v.index, v.shape) is not None for v in values)


def _changes_nothing(target: str, arguments: Arguments) -> bool:
    return target.startswith("aten.dropout") and arguments["p"] == 0.0
