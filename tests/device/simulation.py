"""A CUDA device for a machine without one: its tensors hold real numbers, say that they are on ``cuda:0``, and are as strict.

What it finds, and on a processor nothing does:

* operations on tensors of the device and of the processor together;
* inference tensors that training uses: here, too, moving a module makes new tensors;
* waits for the device: reading a number, blocking copies, shapes that depend on values.

What it cannot: kernels, rounding, memory, NCCL and torch.compile.

The shared library of `compiled.library` has to be loaded before torch is imported; call `install` before anything else.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = torch.device("cuda:0")
CPU = torch.device("cpu")
OURS = tuple(str(Path(__file__).parents[2] / package) for package in ("csip", "pose_cache"))
aten = torch.ops.aten
# The processor may wait for the values of these, as their results' shapes or Python numbers depend on them.
READS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.unique_dim.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class DeviceTensor(torch.Tensor):
    """A tensor on the simulated device; what it holds is in `inner`, on the processor."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> DeviceTensor:
        assert not isinstance(inner, DeviceTensor)
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=DEVICE, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    # Makes `Module.to` swap what a parameter holds, as it does on a GPU: the parameter stays the same object.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> DeviceTensor:
        return DeviceTensor(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return DISPATCHER.run(func, args, kwargs or {})

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")

    def __array__(self, *_: Any) -> Any:
        return self.numpy()

    # Torch makes a tensor of numbers below the level at which `Dispatcher` sees operations.
    def __getitem__(self, index: Any) -> Tensor:
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(
            tuple(on_device(part) if isinstance(part, list | np.ndarray) else part for part in parts)
        )

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return on_device(data, **{"dtype": self.dtype, **options})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        memo[id(self)] = copied = torch.nn.Parameter(copied) if isinstance(self, torch.nn.Parameter) else copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved, and loaded with ``map_location="cpu"``, as every file of this project is."""
        return self.detach().cpu().__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"


def on_device(data: Any, **options: Any) -> Tensor:
    """Make a tensor of numbers, which is made on the processor and copied."""
    return torch.as_tensor(data, **{**options, "device": "cpu"}).to(options.get("device") or DEVICE)


class Dispatcher:
    """Runs operations of the device on the processor, refuses what a GPU refuses, and counts what waits for it."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.operations = 0

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func is aten._fused_sdp_choice.default:
            return 0  # the form that is written in plain operations
        flat = [*leaves_of(args), *leaves_of(tuple(kwargs.values()))]
        tensors = [value for value in flat if isinstance(value, Tensor)]
        ours = any(isinstance(tensor, DeviceTensor) for tensor in tensors)
        target = kwargs.get("device")
        made_here = any(isinstance(value, torch.device) and value.type == "cuda" for value in flat)
        pinned = kwargs.get("pin_memory")
        if not ours and not made_here:
            result = func(*args, **({**kwargs, "pin_memory": False} if pinned else kwargs))
            return mark_pinned(result) if pinned else result
        if is_composed(func):
            # Of inference tensors, torch leaves it to the device to take composed operations apart.
            with SimulatedDevice():
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        self._check(func, args, kwargs, tensors)
        if changes_in_place(func) and not torch.is_inference_mode_enabled():
            refuse_inference(func, args)
        self.operations += 1
        inner_args, inner_kwargs = unwrapped(args), {name: unwrapped(value) for name, value in kwargs.items()}
        for name, value in (("device", CPU), ("pin_memory", False)):
            if inner_kwargs.get(name) is not None:
                inner_kwargs[name] = value
        result = func(*inner_args, **inner_kwargs)
        leaves_device = func is aten._to_copy.default and target is not None and torch.device(target).type == "cpu"
        if leaves_device or (func is aten.copy_.default and not isinstance(args[0], DeviceTensor)):
            return args[0] if func is aten.copy_.default else result.clone() if result is inner_args[0] else result
        if func is aten._to_copy.default and result is inner_args[0]:
            result = result.clone()
        # A view is an inference tensor if what it shows is one, wherever it is made.
        here = torch.is_inference_mode_enabled()
        inference = args[0].is_inference() if is_view(func) else here
        with contextlib.nullcontext() if inference == here else torch.inference_mode(inference):
            wrapped = wrap(result)
        if changes_in_place(func):
            return return_and_correct_aliasing(func, args, kwargs, wrapped)
        return wrapped

    def _check(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
        on_processor = [t for t in tensors if not isinstance(t, DeviceTensor) and t.ndim > 0]
        if func in COPIES:
            if on_processor or torch.device(kwargs.get("device") or DEVICE).type == "cpu":
                self._copy(func, args, kwargs)
        elif func in INDEXING:
            if not isinstance(args[0], DeviceTensor):
                raise RuntimeError(f"{func}: indices should be on the same device as the indexed tensor (cpu)")
            for index in args[1]:
                if index is not None and (
                    not isinstance(index, DeviceTensor) or index.dtype in (torch.bool, torch.uint8)
                ):
                    self.wait(f"{func}: indices on the processor, or a mask")
            if len(args) > 2 and not isinstance(args[2], DeviceTensor) and args[2].ndim > 0:
                raise RuntimeError(f"{func}: expected all tensors to be on the same device, cuda:0; found cpu as well")
        elif on_processor:
            shapes = [tuple(t.shape) for t in on_processor]
            raise RuntimeError(
                f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu, shapes {shapes}"
            )
        elif func in READS:
            self.wait(str(func))

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Count a copy between processor and device that waits: one that blocks, or that is not from or to pinned memory."""
        if func is aten.copy_.default:
            there, source = args[0], args[1]
            blocking = not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
        else:
            there, source = None, args[0]
            blocking = not kwargs.get("non_blocking")
        if source.numel() == 1 and source.ndim == 0 and not isinstance(source, DeviceTensor):
            return  # a number travels with the kernel
        host = source if not isinstance(source, DeviceTensor) else there
        if blocking or host is None or not getattr(host, "pinned", False):
            way = "to the processor" if isinstance(source, DeviceTensor) else "to the device"
            self.wait(f"copy {way}{'' if blocking else ' from memory that is not pinned'}")

    def wait(self, what: str) -> None:
        """Count a wait, by the line of this project that asked for it."""
        frame = sys._getframe()
        while frame.f_back is not None and not frame.f_code.co_filename.startswith(OURS):
            frame = frame.f_back
        ours = frame.f_code.co_filename.startswith(OURS)
        where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if ours else "a library"
        self.waits[f"{what} in {where}"] += 1


def leaves_of(values: Any) -> list[Any]:
    """Return what is in nested lists and tuples."""
    found = []
    for value in values:
        if isinstance(value, list | tuple):
            found += leaves_of(value)
        else:
            found.append(value)
    return found


def unwrapped(value: Any) -> Any:
    """Return an argument with what its tensors of the device hold."""
    if isinstance(value, DeviceTensor):
        return value.inner
    if isinstance(value, list | tuple):
        return type(value)(unwrapped(part) for part in value)
    return value


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a compiled function of a library, which torch does not dispatch, one that runs on the device."""

    def run(*args: Any, **kwargs: Any) -> Any:
        found = function(*unwrapped(args), **{name: unwrapped(value) for name, value in kwargs.items()})
        return wrap(found) if any(isinstance(value, DeviceTensor) for value in [*args, *kwargs.values()]) else found

    return run


def wrap(value: Any) -> Any:
    """Return a result with tensors of the device."""
    if isinstance(value, Tensor):
        return DeviceTensor(value)
    if isinstance(value, list | tuple):
        return type(value)(wrap(part) for part in value)
    return value


def refuse_inference(func: Any, args: Any) -> None:
    """Refuse to change inference tensors, as autograd does where it sees the change."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            for tensor in leaves_of([value]):
                if isinstance(tensor, DeviceTensor) and tensor.is_inference():
                    raise RuntimeError(f"{func}: in-place update to inference tensor outside InferenceMode")


@functools.cache
def is_composed(func: Any) -> bool:
    return bool(func._can_decompose())


@functools.cache
def changes_in_place(func: Any) -> bool:
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments)


@functools.cache
def is_view(func: Any) -> bool:
    """Tell whether what an operation returns shares the memory of what it was given, and changes nothing."""
    infos = [result.alias_info for result in func._schema.returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


class SimulatedDevice(TorchDispatchMode):
    """As long as it lasts, tensors can be made on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return DISPATCHER.run(func, args, kwargs or {})


class Event:
    """A CUDA event: to wait for one that nothing was queued after leaves the device with nothing to do."""

    def __init__(self, **_: Any) -> None:
        self.at = 0

    def record(self, *_: Any) -> None:
        self.at = DISPATCHER.operations

    def synchronize(self) -> None:
        if self.at == DISPATCHER.operations:
            DISPATCHER.wait("event")

    def elapsed_time(self, other: Event) -> float:
        return float(other.at - self.at)


DISPATCHER = Dispatcher()


def mark_pinned(tensor: Tensor) -> Tensor:
    tensor.pinned = True  # type: ignore[attr-defined]
    return tensor


def install(library: str) -> None:
    """Let torch believe that there is one GPU: that of the shared library, which was loaded before torch."""
    ctypes.CDLL(library).take_device()
    import lightning_fabric.accelerators.cuda as fabric_cuda
    import torch.amp.grad_scaler
    import torch.cuda.amp.common
    import torch.distributed.optim  # scripts functions that call torch.tensor, so before that is replaced

    plain = torch.tensor

    def tensor(data: Any, **options: Any) -> Tensor:
        there = options.get("device") is not None and torch.device(options["device"]).type == "cuda"
        return on_device(data, **options) if there else plain(data, **options)

    torch.tensor = tensor
    cuda: Any = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.set_device = lambda *_: None
    cuda.synchronize = lambda *_: DISPATCHER.wait("synchronize")
    cuda.is_bf16_supported = lambda *_, **__: True
    cuda.get_device_name = lambda *_: "simulated"
    cuda.get_device_capability = lambda *_: (8, 0)
    cuda.mem_get_info = lambda *_: (70 << 30, 80 << 30)
    cuda.max_memory_allocated = lambda *_: 0
    cuda.reset_peak_memory_stats = lambda *_: None
    cuda.empty_cache = lambda: None
    cuda._lazy_init = lambda: None
    torch.compile = lambda model, *_, **__: model  # type: ignore[assignment]
    cuda._lazy_call = lambda *_, **__: None
    cuda.is_initialized = lambda: True
    cuda.manual_seed_all = lambda *_: None
    cuda.Event = Event
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False  # type: ignore[assignment]
    torch.Tensor.pin_memory = lambda self, *_: mark_pinned(self)  # type: ignore[method-assign]
    fabric_cuda.num_cuda_devices = lambda: 1
    fabric_cuda._check_cuda_matmul_precision = lambda *_: None


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the waits of a block."""
    DISPATCHER.waits = Counter()
    yield DISPATCHER.waits
