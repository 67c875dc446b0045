"""Where in a network a converter fails, and where its Python looks at values of the picture.

An ONNX graph is recorded from one run on an empty picture: `if x.mean() > 0.5:` would be decided
by that picture for all others, and `x / x.max().item()` divided by its maximum, silently; so would
`if len(x[x > 1.5]) > 9:` by how many values were found.
"""

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from fastseg import restate
from fastseg.fold import tensors_in
from fastseg.own_code import describe_error

READERS = {
    *("__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__", "__array__"),
    *("item", "tolist", "numpy", "equal", "allclose", "is_nonzero"),
}
# Of tensors in a list they take the values; of a tensor itself they make another.
MAKERS = {"tensor", "as_tensor", "asarray", "new_tensor", "new"}
# Of a tensor that has as many values as were found in the picture.
COUNTERS = {"__len__", "size", "numel", "nelement"}
_SIZES = (Tensor.shape.__get__, Tensor.nbytes.__get__)  # type: ignore[attr-defined]
_SPLITTERS = {"split", "chunk"}
_ATEN = torch.ops.aten
_UNIQUE = (_ATEN._unique2, _ATEN.unique_dim, _ATEN.unique_consecutive)
# What leaves the values and another number of places: of what was found, as unknown as it was.
_RESIZERS = (
    *(_ATEN.cat, _ATEN.repeat, _ATEN.slice, _ATEN.unfold),
    *(_ATEN.view, _ATEN._unsafe_view, _ATEN.constant_pad_nd),
)
_NOT_THE_NETWORKS = (str(Path(torch.__file__).parent), __file__, restate.__file__)


def first_value_read(module: nn.Module, image: Tensor) -> str:
    """Return the first line that looks at a value which depends on the image; "" if none does.

    How many values were found in the image is one, as the length of `x[x > 1.5]`.
    """
    return lines_to_mind(module, image)[0]


def lines_to_mind(module: nn.Module, image: Tensor) -> tuple[str, str]:
    """Return the first line that looks at a value of the image, and the first that writes a part.

    That is into a part of a part, `y[:, 2][mask] = 9.0`, which torch's exporter to ONNX may lose.
    """
    picture = noise_like(image)  # of an empty one, all or none is found, a size like any other
    reads = _Reads(picture)
    try:
        with torch.no_grad(), reads, _Operations(reads):
            module(picture)
    except Exception:  # such as an assertion of what pictures can be, which has read the values
        if not reads.place:
            raise
    return reads.place, reads.written


def noise_like(image: Tensor) -> Tensor:
    """Return a picture of noise as large and of the same type, the same each time."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    if image.is_floating_point():
        return noise.to(image.dtype)
    return (64 * noise + 128).clamp(0, 255).to(image.dtype)


def why_untraceable(module: nn.Module, image: Tensor, error: BaseException) -> str:
    """Return why torch could not follow a module: the line that reads a value, or its own words."""
    try:
        place = first_value_read(module, image)
    except Exception:  # what the module itself raises is in `error`
        place = ""
    if not place:
        return describe_error(error)
    return (
        "its Python looks at values of the picture; use torch.where or a tensor in place of "
        + place
    )


class _Reads(TorchFunctionMode):
    """Follows what is computed from the image, and notes where Python takes a value of it."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.place = self.written = ""
        self._from_image = WeakTensorKeyDictionary()
        self._from_image[image] = True
        self._counts = WeakTensorKeyDictionary()  # the size that depends on the image, if one does

    def follow(self, given: list[Tensor], result: Any, resizes: bool = False) -> None:
        """Note what an operation has made of what it was given, if that depends on the image."""
        if not any(tensor in self._from_image for tensor in given):
            return
        counted = [tensor for tensor in given if tensor in self._counts]
        known = {size for tensor in given if tensor not in self._counts for size in tensor.shape}
        counts = self._counts_of(given) - known - {1}
        before = {size for tensor in counted for size in tensor.shape}
        # What gives nothing back has written into its first argument.
        for made in tensors_in(given[0] if result is None else result):
            self._from_image[made] = True
            if any(made is tensor for tensor in given) or made in self._counts:
                continue  # written in place: as large as before
            left = [size for size in made.shape if size in counts]
            if not left and resizes and counted:
                left = [size for size in made.shape if size not in before]
            if left:
                self._counts[made] = left[0]

    def find(self, func: Any, args: Any, result: Any) -> None:
        """Note what is as large as the number of values that were found in the image."""
        kind = func.overloadpacket
        chosen = args[1] if kind in (_ATEN.index, _ATEN.masked_select) else args[0]
        deciding = list(tensors_in(chosen))
        if kind is _ATEN.index:  # whole numbers choose as many as they are
            deciding = [x for x in deciding if x.dtype in (torch.bool, torch.uint8)]
        if not any(tensor in self._from_image for tensor in deciding):
            return
        made = list(tensors_in(result))
        for tensor in made[::2] if kind in _UNIQUE else made:  # not the places of each value
            count = tensor.shape[_place_of_count(kind, args) if tensor.ndim > 1 else 0]
            if kind is not _ATEN.bincount or [count] != [*args[2:]]:  # as many as asked for
                self._counts[tensor] = count

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.place and self._is_read(func, args, kwargs, result):
            self.place = _place()
        self.follow(list(tensors_in((args, kwargs))), result)
        if func.__name__ == "__setitem__" and not self.written and args[0]._is_view():
            self.written = _place() if args[0] in self._from_image else ""
        return result

    def _is_read(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> bool:
        name, given = func.__name__, list(tensors_in((args, kwargs)))
        if name in MAKERS:
            whole = {id(value) for value in (*args, *kwargs.values())}
            given = [tensor for tensor in given if id(tensor) not in whole]
        elif name == "pad":  # with a value
            given = given[1:]
        if name in READERS | MAKERS | {"pad"}:
            return any(tensor in self._from_image for tensor in given)
        counts = self._counts_of(given)
        if name == "unbind":  # which iterating is
            return len(result) in counts
        if counts and name in _SPLITTERS:
            dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
            return given[0].shape[dim] in counts
        if isinstance(result, int) and name in ("size", "__len__"):  # of one dimension
            return result in counts
        return bool(counts) and (name in COUNTERS or func in _SIZES)

    def _counts_of(self, given: list[Tensor]) -> set[int]:
        return {self._counts[tensor] for tensor in given if tensor in self._counts}


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what scripted functions compute, and what gives as many values as it finds."""

    def __init__(self, reads: _Reads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads = reads

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():  # in a scripted function our reads would count too
            if torch.Tag.dynamic_output_shape in func.tags:
                self._reads.find(func, args, result)
            given = list(tensors_in((args, kwargs)))
            told = func.overloadpacket is _ATEN.view and -1 not in args[1]  # each side of it
            self._reads.follow(given, result, func.overloadpacket in _RESIZERS and not told)
        return result


def _place_of_count(kind: Any, args: Any) -> int:
    """Return along which dimension a result has as many places as values were found."""
    if kind is _ATEN.index:
        asked = [index for index, chosen in enumerate(args[1]) if chosen is not None]
        return asked[0] if asked[-1] - asked[0] < len(asked) else 0  # apart: they come first
    return int(args[1]) if kind is _ATEN.unique_dim else 0


def _place() -> str:
    """Return the innermost line of the network's own code: "nets.py:12: if y.mean() > 0.5:"."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_NOT_THE_NETWORKS):
            return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return "torch's own code"


def describe_step(program: ExportedProgram, names: Iterable[str]) -> str:
    """Return an operation of the network with the module it came from.

    Args:
        program: as traced.
        names: of steps, possibly with something appended ("conv2d_3_cast_fp16"); the first that
            is known counts.
    """
    steps = [node for node in program.graph.nodes if node.op == "call_function"]
    steps.sort(key=lambda node: -len(node.name))  # conv2d_3 before conv2d
    for name in names:
        for node in steps:
            if name == node.name or name.startswith(f"{node.name}_"):
                return f"{node.target} in {_module_of(node)}"
    return "the network"


def _module_of(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", "")
    # As its owner knows it: the deploy graph holds the network as core.network.
    name = path.removeprefix("core").removeprefix(".network").removeprefix(".")
    if path == "":
        return "the deploy graph's last steps"
    return f"{name or 'the network'} ({kind})"
