"""What a pickle would import, found by reading its instructions and following none of them."""

import bz2
import codecs
import io
import lzma
import math
import pickletools
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

MOST_OPCODES = 2_000_000
MOST_INFLATED = 512 << 20
_MOST_NAMES = 1000
_LONG = 1 << 16  # no name is as long; what is, is passed over
_ITEM = re.compile(r"([a-zA-Z])(\d{1,9})")
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_UNKNOWN = "a name worked out while it is loaded"
_DAMAGE = (ValueError, LookupError, EOFError, OSError, ArithmeticError, RecursionError, zlib.error, lzma.LZMAError)


class LimitError(Exception):
    """There is more than is looked at."""


@dataclass(slots=True)
class PickleFacts:
    """What was found.

    Args:
        imports: Names it would import, in order.
        sklearn: Version of scikit-learn that wrote it; empty when none did.
        runs: Whether unpickling it may run code: it imports something, or may do so where it was not read. What makes
            no sense before it imports anything fails before anything ran.
        damaged: Whether it ends too early or makes no sense.
        note: Why it was not read to its end; empty when it was.
    """

    imports: dict[str, None] = field(default_factory=dict)
    sklearn: str = ""
    runs: bool = False
    damaged: bool = False
    note: str = ""


def read_pickle(stream: BinaryIO, *, most_opcodes: int = MOST_OPCODES) -> PickleFacts:
    """Read a pickle, or a joblib file compressed or not, without loading it.

    Time and memory are bounded whatever the file: by the number of instructions, by the bytes after decompression, and
    by passing over whatever is too long for a name.

    Example:
        >>> import pickle
        >>> list(read_pickle(io.BytesIO(pickle.dumps(print))).imports)
        ['builtins.print']
    """
    facts = PickleFacts()
    stream.seek(0)
    try:
        facts.runs = True  # compressed or not, nothing is known yet
        plain = _inflate(stream)
        facts.runs = plain is not stream
        _Walk(facts, _Reader(plain, most_opcodes)).run()
    except LimitError as error:
        facts.runs = True
        facts.note = f"it is larger than what is looked at: {error}"
    except _DAMAGE as error:
        facts.damaged = True
        facts.note = f"it is cut off, damaged or no pickle: {' '.join(str(error).split())[:200]}"
    return facts


def _inflate(stream: BinaryIO) -> BinaryIO:
    head = stream.read(6)
    stream.seek(0)
    decompressor: Any
    if head[:2] in (b"\x1f\x8b", b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"):
        decompressor = zlib.decompressobj(wbits=47)  # gzip and zlib alike
    elif head[:3] == b"BZh":
        decompressor = bz2.BZ2Decompressor()
    elif head[:5] == b"\xfd7zXZ" or head[:2] == b"]\x00":
        decompressor = lzma.LZMADecompressor(memlimit=256 << 20)
    elif head[:4] == b"\x04\x22\x4d\x18" or head[:2] == b"ZF":
        raise ValueError("it is compressed in a way that is not read here (LZ4, or joblib before 0.10)")
    else:
        return stream
    return io.BufferedReader(_Inflated(stream, decompressor), _LONG)


class _Inflated(io.RawIOBase):
    def __init__(self, stream: BinaryIO, decompressor: Any) -> None:
        self._stream, self._decompressor, self._left = stream, decompressor, MOST_INFLATED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        zipped, data = self._decompressor, b""
        while not data and not zipped.eof:
            feed = getattr(zipped, "unconsumed_tail", b"")
            if not feed and getattr(zipped, "needs_input", True):
                feed = self._stream.read(_LONG)
                if not feed:
                    raise EOFError("its compressed data ends too early")
            data = zipped.decompress(feed, len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise LimitError("too many bytes after decompression")
        buffer[: len(data)] = data
        return len(data)


class _Passed(bytes):
    """Stands for bytes that were passed over: has their length and none of them."""

    length = 0

    def __len__(self) -> int:
        return self.length


class _Reader:
    """What ``pickletools`` reads from: never takes more into memory than a name can need."""

    def __init__(self, stream: BinaryIO, opcodes: int) -> None:
        self._stream, self._opcodes = stream, opcodes

    def count(self) -> None:
        self._opcodes -= 1
        if self._opcodes < 0:
            raise LimitError("too many instructions")

    def read(self, count: int) -> bytes:
        if count <= _LONG:
            return self._stream.read(count)
        self.skip(count)
        passed = _Passed()
        passed.length = count
        return passed

    def readline(self) -> bytes:
        line = rest = self._stream.readline(_LONG)
        while len(rest) == _LONG and not rest.endswith(b"\n"):
            rest = self._stream.readline(_LONG)
        return line

    def skip(self, count: int) -> None:
        while count > 0:
            data = self._stream.read(min(count, 1 << 20))
            if not data:
                raise EOFError("its data ends too early")
            count -= len(data)


@dataclass(slots=True)
class _Thing:
    """A name, or what calling it would make."""

    name: str
    args: Any = None
    state: Any = None


_MARK, _OTHER = object(), object()
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
# What imports, and frames: where an instruction crosses the end of its frame, Python's two unpicklers go separate ways.
_IMPORTING = frozenset(("FRAME", "GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"))
_WANTED = frozenset(("shape", "dtype", "numpy_array_alignment_bytes"))


class _Step(NamedTuple):
    """One instruction: what it took from the stack, what lay above the mark, and its argument."""

    walk: "_Walk"
    taken: list[Any]
    items: tuple[Any, ...]
    arg: Any


class _Walk:
    """Runs the instructions over a stack of stand-ins: enough to know names, and how long joblib's arrays are."""

    def __init__(self, facts: PickleFacts, reader: _Reader) -> None:
        self._facts, self._reader = facts, reader
        self._version_next = False

    def run(self) -> None:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        name = ""
        while name != "STOP":
            self._reader.count()
            code = self._reader.read(1)
            opcode: Any = _OPCODES.get(code.decode("latin-1"))
            if opcode is None:
                raise ValueError("it has an instruction that there is none of" if code else "it ends too early")
            name = opcode.name
            self._facts.runs |= name in _IMPORTING
            arg: Any = None
            if opcode.arg is not None:
                arg = self._line(name) if opcode.arg.n == pickletools.UP_TO_NEWLINE else opcode.arg.reader(self._reader)
            if name == "INST":  # what it imports is imported before a mark is missed
                self.imported(arg.replace(" ", ".", 1))
            if name.endswith("GET"):
                stack.append(memo.get(arg, _OTHER))
            elif name == "MEMOIZE" or name.endswith("PUT"):
                memo[len(memo) if arg is None else arg] = stack[-1]
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "POP":
                stack.pop()
            elif name == "DUP":
                stack.append(stack[-1])
            else:
                self._step(opcode, arg, stack)

    def _line(self, name: str) -> Any:
        """An argument that ends with its line. Unpicklers differ in what they take for a number: none fails here."""
        line = self._reader.readline().removesuffix(b"\n")
        try:
            if name in ("GLOBAL", "INST"):
                return b" ".join((line, self._reader.readline().removesuffix(b"\n"))).decode("utf-8", "replace")
            if name == "STRING":
                return codecs.escape_decode(line.strip()[1:-1])[0].decode("latin-1")
            if name == "UNICODE":
                return str(line, "raw-unicode-escape")
            return int(line.partition(b"\0")[0].strip().removesuffix(b"L"))
        except ValueError:
            return _OTHER

    def _step(self, opcode: Any, arg: Any, stack: list[Any]) -> None:
        before, items = opcode.stack_before, ()
        below = len(before)
        if pickletools.markobject in before:
            if _MARK not in stack:
                raise ValueError("it takes more from its stack than there is")
            below = before.index(pickletools.markobject)
            at = len(stack) - 1 - stack[::-1].index(_MARK)
            items = tuple(stack[at + 1 :])
            del stack[at:]
        if below > len(stack):
            raise ValueError("it takes more from its stack than there is")
        taken = stack[len(stack) - below :]
        del stack[len(stack) - below :]
        if not opcode.stack_after:
            return
        action = _ACTIONS.get(opcode.name)
        if action is not None:
            stack.append(action(_Step(self, taken, items, arg)))
        else:
            stack.append(self._constant(arg) if not before and isinstance(arg, int | str) else _OTHER)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, int):
            return value if abs(value) < 1 << 63 else _OTHER
        if self._version_next:
            self._facts.sklearn = self._facts.sklearn or value[:40]
        self._version_next = value == "_sklearn_version"
        return value[:200]

    def imported(self, name: str) -> _Thing:
        imports = self._facts.imports
        if name not in imports and len(imports) >= _MOST_NAMES:
            raise LimitError("too many names")
        imports[name[:300]] = None
        return _Thing(name)

    def built(self, made: Any, state: Any) -> Any:
        if not isinstance(made, _Thing):
            return made
        made.state = state
        if made.name == _WRAPPER and isinstance(state, dict):
            self._pass_array(state)
        return made

    def _pass_array(self, wrapper: dict[str, Any]) -> None:
        """The array itself follows in the middle of the instructions, padded to a multiple of 16 bytes."""
        dtype, shape = wrapper.get("dtype"), wrapper.get("shape")
        args = dtype.args if isinstance(dtype, _Thing) and dtype.name == "numpy.dtype" else None
        item = _ITEM.fullmatch(args[0]) if isinstance(args, tuple) and args and isinstance(args[0], str) else None
        sizes = isinstance(shape, tuple) and all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape)
        if not isinstance(dtype, _Thing) or not isinstance(shape, tuple) or item is None or not sizes:
            raise ValueError("an array in it has no proper type or shape")
        # The last of numpy's state are its flags, of which the lowest says that there are references to objects.
        flags = dtype.state[-1] if isinstance(dtype.state, tuple) and dtype.state else 0
        if item[1] == "O" or (item[1] == "V" and isinstance(flags, int) and flags & 1):
            _Walk(self._facts, self._reader).run()
            return
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self._reader.skip(int.from_bytes(self._reader.read(1), "little"))
        self._reader.skip(math.prod(shape) * int(item[2]) * (4 if item[1] == "U" else 1))


def _named(step: _Step) -> _Thing:
    return step.walk.imported(str(step.arg).replace(" ", ".", 1))


def _from_stack(step: _Step) -> _Thing:
    known = all(isinstance(part, str) for part in step.taken)
    return step.walk.imported(".".join(step.taken) if known else _UNKNOWN)


def _called(maker: Any, args: Any) -> _Thing:
    return _Thing(maker.name if isinstance(maker, _Thing) else _UNKNOWN, args)


def _keep(target: Any, items: Any) -> Any:
    if isinstance(target, dict):  # only what tells the length of an array; hostile keys are never hashed
        pairs = zip(items[::2], items[1::2], strict=False)
        target.update((key, value) for key, value in pairs if isinstance(key, str) and key in _WANTED)
    return target


_ACTIONS: dict[str, Callable[[_Step], Any]] = {
    "GLOBAL": _named,
    "STACK_GLOBAL": _from_stack,
    "INST": lambda step: _called(_named(step), step.items),
    "OBJ": lambda step: _called(step.items[0], step.items[1:]),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda step: step.walk.imported(f"copyreg extension {step.arg}")),
    "PERSID": lambda _: _OTHER,
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX"), lambda step: _called(step.taken[0], step.taken[1])),
    "BUILD": lambda step: step.walk.built(*step.taken),
    "EMPTY_TUPLE": lambda _: (),
    "TUPLE": lambda step: step.items if len(step.items) <= 64 else _OTHER,
    **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3"), lambda step: tuple(step.taken)),
    "EMPTY_DICT": lambda _: {},
    "DICT": lambda step: _keep({}, step.items),
    "SETITEM": lambda step: _keep(step.taken[0], step.taken[1:]),
    "SETITEMS": lambda step: _keep(step.taken[0], step.items),
    **dict.fromkeys(("APPEND", "APPENDS", "ADDITEMS"), lambda step: step.taken[0]),
}
