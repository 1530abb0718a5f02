"""What a pickle would import, found by reading its instructions and following none of them."""

import bz2
import io
import lzma
import math
import pickletools
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

MOST_OPCODES = 2_000_000
MOST_BYTES = 512 << 20
_MOST_NAMES = 1000
_LONG = 1 << 16  # no name is as long; what is, is passed over
_ITEM = re.compile(r"([a-zA-Z])(\d{1,9})")
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_VERSION_KEY = "_sklearn_version"
_UNKNOWN = "a name worked out while it is loaded"


class LimitError(Exception):
    """There is more than is looked at."""


@dataclass(slots=True)
class PickleFacts:
    """What was found.

    Args:
        imports: Names it would import, in order.
        sklearn: Version of scikit-learn that wrote it; empty when none did.
        complete: Whether it was read to its end.
        damaged: Whether that is because it ends too early or makes no sense.
        note: Why it was not.
    """

    imports: dict[str, None] = field(default_factory=dict)
    sklearn: str = ""
    complete: bool = False
    damaged: bool = False
    note: str = ""


def read_pickle(stream: BinaryIO, *, most_opcodes: int = MOST_OPCODES, most_bytes: int = MOST_BYTES) -> PickleFacts:
    """Read a pickle, or a joblib file compressed or not, without loading it.

    Time and memory are bounded whatever the file: by the number of instructions, by the bytes after decompression, and
    by passing over whatever is too long for a name.

    Args:
        stream: Read from its beginning.
        most_opcodes: Instructions that are read.
        most_bytes: Bytes that are read, after decompression.

    Returns:
        What was found up to where it could be read.

    Example:
        >>> import pickle
        >>> list(read_pickle(io.BytesIO(pickle.dumps(print))).imports)
        ['builtins.print']
    """
    facts = PickleFacts()
    stream.seek(0)
    try:
        _Walk(facts, _Reader(_inflate(stream), most_bytes, most_opcodes)).run()
        facts.complete = True
    except LimitError as error:
        facts.note = f"it is larger than what is looked at: {error}"
    except (
        ValueError,
        LookupError,
        EOFError,
        OSError,
        ArithmeticError,
        RecursionError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        facts.damaged = True
        facts.note = f"it is cut off, damaged or no pickle: {' '.join(str(error).split())[:200]}"
    return facts


def _inflate(stream: BinaryIO) -> BinaryIO:
    head = stream.read(6)
    stream.seek(0)
    decompressor: Any
    if head[:2] == b"\x1f\x8b" or head[:2] in (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"):
        decompressor = zlib.decompressobj(wbits=47)  # gzip and zlib alike
    elif head[:3] == b"BZh":
        decompressor = bz2.BZ2Decompressor()
    elif head[:5] == b"\xfd7zXZ" or head[:3] == b"]\x00\x00":
        decompressor = lzma.LZMADecompressor(memlimit=256 << 20)
    elif head[:4] == b"\x04\x22\x4d\x18":
        raise ValueError("it is compressed with LZ4, which is not read here")
    else:
        return stream
    return io.BufferedReader(_Inflated(stream, decompressor), _LONG)


class _Inflated(io.RawIOBase):
    def __init__(self, stream: BinaryIO, decompressor: Any) -> None:
        self._stream, self._decompressor = stream, decompressor

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        zipped = self._decompressor
        while not zipped.eof:
            feed = getattr(zipped, "unconsumed_tail", b"")
            if not feed and getattr(zipped, "needs_input", True):
                feed = self._stream.read(_LONG)
                if not feed:
                    raise EOFError("its compressed data ends too early")
            data = zipped.decompress(feed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0


class _Passed(bytes):
    """Stands for bytes that were passed over: has their length and none of them."""

    length = 0

    def __len__(self) -> int:
        return self.length


class _Reader:
    """What ``pickletools`` reads from: never takes more into memory than a name can need."""

    def __init__(self, stream: BinaryIO, most_bytes: int, most_opcodes: int) -> None:
        self._stream, self._left, self.opcodes_left = stream, most_bytes, most_opcodes

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise LimitError("too many bytes")

    def read(self, count: int) -> bytes:
        if count <= _LONG:
            self._take(count)
            return self._stream.read(count)
        self.skip(count)
        passed = _Passed()
        passed.length = count
        return passed

    def readline(self) -> bytes:
        line = self._stream.readline(_LONG)
        self._take(len(line))
        return line

    def skip(self, count: int) -> None:
        if count and isinstance(self._stream, io.BufferedReader) and not isinstance(self._stream.raw, _Inflated):
            self._stream.seek(count - 1, io.SEEK_CUR)  # costs nothing, so that it does not count
            if not self._stream.read(1):
                raise EOFError("its data ends too early")
            return
        self._take(count)
        while count > 0:
            data = self._stream.read(min(count, _LONG))
            if not data:
                raise EOFError("its data ends too early")
            count -= len(data)


class _Mark:
    pass


@dataclass(slots=True)
class _Name:
    name: str


@dataclass(slots=True)
class _Made:
    """What calling ``maker`` would return."""

    maker: str
    args: Any = None
    state: Any = None


_MARK, _OTHER = _Mark(), object()
_WANTED = frozenset(("shape", "dtype", "numpy_array_alignment_bytes"))
_MEMO_SETS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_MEMO_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Walk:
    """Runs the instructions over a stack of stand-ins: enough to know names, and how long joblib's arrays are."""

    def __init__(self, facts: PickleFacts, reader: _Reader) -> None:
        self._facts, self._reader = facts, reader
        self._version_next = False

    def run(self) -> None:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        arg: Any
        for opcode, arg, _ in pickletools.genops(self._reader):  # type: ignore[arg-type]  # it has no position
            self._reader.opcodes_left -= 1
            if self._reader.opcodes_left < 0:
                raise LimitError("too many instructions")
            name = opcode.name
            if name in _MEMO_GETS:
                stack.append(memo[arg])
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in _MEMO_SETS:
                memo[arg] = stack[-1]
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "POP":
                stack.pop()
            elif name == "DUP":
                stack.append(stack[-1])
            else:
                self._step(opcode, arg, stack)

    def _step(self, opcode: Any, arg: Any, stack: list[Any]) -> None:
        before, after, items = opcode.stack_before, opcode.stack_after, ()
        below = len(before)
        if pickletools.markobject in before:
            below = before.index(pickletools.markobject)
            items = _pop_to_mark(stack)
        if below > len(stack):
            raise ValueError("it takes more from its stack than there is")
        taken = stack[len(stack) - below :]
        del stack[len(stack) - below :]
        if not after:
            return
        action = _ACTIONS.get(opcode.name)
        if action is not None:
            stack.append(action(_Step(self, taken, items, arg)))
        elif opcode.name in _CONSTANTS:
            stack.append(_CONSTANTS[opcode.name])
        elif not before and isinstance(arg, int | str):
            stack.append(self._constant(arg))
        else:
            stack.append(_OTHER)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, int):
            return value if abs(value) < 1 << 63 else _OTHER
        if self._version_next:
            self._facts.sklearn = self._facts.sklearn or value[:40]
        self._version_next = value == _VERSION_KEY
        return value[:200]

    def imported(self, name: str) -> _Name:
        imports = self._facts.imports
        if len(imports) < _MOST_NAMES:
            imports[name[:300]] = None
        elif name not in imports:
            raise LimitError("too many names")
        return _Name(name)

    def built(self, made: Any, state: Any) -> Any:
        if isinstance(made, _Made):
            made.state = state
            if made.maker == _WRAPPER and isinstance(state, dict):
                self._pass_array(state)
                return _OTHER
        return made

    def _pass_array(self, wrapper: dict[str, Any]) -> None:
        """The array itself follows in the middle of the instructions, padded to a multiple of 16 bytes."""
        dtype, shape = wrapper.get("dtype"), wrapper.get("shape")
        size, has_objects = _item_size(dtype)
        if has_objects:
            _Walk(self._facts, self._reader).run()
            return
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape):
            raise ValueError("an array in it has no proper shape")
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self._reader.skip(int.from_bytes(self._reader.read(1), "little"))
        self._reader.skip(math.prod(shape) * size)


def _item_size(dtype: Any) -> tuple[int, bool]:
    args = dtype.args if isinstance(dtype, _Made) and dtype.maker == "numpy.dtype" else None
    match = _ITEM.fullmatch(args[0]) if isinstance(args, tuple) and args and isinstance(args[0], str) else None
    if match is None:
        raise ValueError("an array in it has no proper type")
    kind, size = match[1], int(match[2])
    flags = dtype.state[-1] if isinstance(dtype.state, tuple) and dtype.state else 0
    # The last of numpy's state are its flags, of which the lowest says that there are references to objects.
    has_objects = kind == "O" or (kind == "V" and isinstance(flags, int) and bool(flags & 1))
    return size * 4 if kind == "U" else size, has_objects


def _pop_to_mark(stack: list[Any]) -> tuple[Any, ...]:
    for at in range(len(stack) - 1, -1, -1):
        if stack[at] is _MARK:
            items = tuple(stack[at + 1 :])
            del stack[at:]
            return items
    raise ValueError("it takes more from its stack than there is")


class _Step(NamedTuple):
    """One instruction: what it took from the stack, what lay above the mark, and its argument."""

    walk: _Walk
    taken: list[Any]
    items: tuple[Any, ...]
    arg: Any


def _called(maker: Any, args: Any) -> _Made:
    return _Made(maker.name if isinstance(maker, _Name) else _UNKNOWN, args)


def _keep(target: Any, keys: Sequence[Any], values: Sequence[Any]) -> Any:
    if isinstance(target, dict):  # only what tells the length of an array; hostile keys are never hashed
        target.update((k, v) for k, v in zip(keys, values, strict=False) if isinstance(k, str) and k in _WANTED)
    return target


def _from_stack(step: _Step) -> _Name:
    module, name = step.taken
    known = isinstance(module, str) and isinstance(name, str)
    return step.walk.imported(f"{module}.{name}" if known else _UNKNOWN)


def _named(step: _Step) -> _Name:
    return step.walk.imported(str(step.arg).replace(" ", ".", 1))


_ACTIONS: dict[str, Callable[[_Step], Any]] = {
    "GLOBAL": _named,
    "STACK_GLOBAL": _from_stack,
    "INST": lambda step: _called(_named(step), step.items),
    "OBJ": lambda step: _called(step.items[0], step.items[1:]),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda step: step.walk.imported(f"copyreg extension {step.arg}")),
    "PERSID": lambda _: _OTHER,
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX"), lambda step: _called(step.taken[0], step.taken[1])),
    "BUILD": lambda step: step.walk.built(step.taken[0], step.taken[1]),
    "TUPLE": lambda step: step.items if len(step.items) <= 64 else _OTHER,
    **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3"), lambda step: tuple(step.taken)),
    "EMPTY_DICT": lambda _: {},
    "DICT": lambda step: _keep({}, step.items[::2], step.items[1::2]),
    "SETITEM": lambda step: _keep(step.taken[0], [step.taken[1]], [step.taken[2]]),
    "SETITEMS": lambda step: _keep(step.taken[0], step.items[::2], step.items[1::2]),
    **dict.fromkeys(("APPEND", "APPENDS", "ADDITEMS"), lambda step: step.taken[0]),
}
