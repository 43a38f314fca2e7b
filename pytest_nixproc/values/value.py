"""The base of values: frozen dataclasses that share their methods, instead of having them compiled for each class.

``dataclasses`` writes and compiles seven methods for a frozen class, which was more than half of the time in which this
package was imported. Fields, defaults, comparison and ``dataclasses.replace`` are the same.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from inspect import Parameter, Signature
from operator import attrgetter
from typing import Any, ClassVar, Never, dataclass_transform


class Layout:
    """The fields of one class of values, as its methods need them."""

    __slots__ = ("blank", "contents", "factories", "positional", "required")

    def __init__(self, kind: type[Value]) -> None:
        items = fields(kind)
        self.blank = {item.name: item.default for item in items}
        self.positional = tuple(item.name for item in items if not item.kw_only)
        self.factories = [(item.name, item.default_factory) for item in items if item.default_factory is not MISSING]
        self.required = [name for name, default in self.blank.items() if default is MISSING]
        # Without fields, all of one class are equal.
        self.contents = attrgetter(*(item.name for item in items)) if items else type


class LazySignature:
    """The signature of a class of values, for those who ask: ``help`` and ``inspect``."""

    def __get__(self, instance: object, kind: type[Value]) -> Signature:
        parameters = []
        for item in sorted(fields(kind), key=lambda item: bool(item.kw_only)):
            default = item.default if item.default_factory is MISSING else item.default_factory
            way = Parameter.KEYWORD_ONLY if item.kw_only else Parameter.POSITIONAL_OR_KEYWORD
            default = Parameter.empty if default is MISSING else default
            parameters.append(Parameter(item.name, way, default=default, annotation=item.type))
        return Signature(parameters)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Value:
    """A dataclass that cannot be changed, is equal to another by its fields, and has a hash if they have one.

    Subclasses annotate their fields as those of dataclasses.
    """

    __signature__: ClassVar = LazySignature()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    _layout: ClassVar[Layout]

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        super().__init_subclass__()
        dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
        cls._layout = Layout(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        layout, contents = self._layout, self.__dict__
        # In the order of the fields, which vars() shows.
        contents.update(layout.blank)
        for name, factory in layout.factories:
            if name not in kwargs:
                contents[name] = factory()
        if args:
            given = layout.positional[: len(args)]
            contents.update(zip(given, args, strict=False))
            if len(given) < len(args) or not kwargs.keys().isdisjoint(given):
                self._refuse(*args, **kwargs)
        contents.update(kwargs)
        if len(contents) > len(layout.blank):
            self._refuse(*args, **kwargs)
        for name in layout.required:
            if contents[name] is MISSING:
                self._refuse(*args, **kwargs)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the fields, in classes that have something to check."""

    def _refuse(self, *args: Any, **kwargs: Any) -> None:
        """Raise TypeError with what is wrong with the arguments of the constructor."""
        kind = type(self)
        try:
            Signature.bind(kind.__signature__, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{kind.__name__}() {error}") from None

    def __repr__(self) -> str:
        shown = (f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._layout.contents(self) == self._layout.contents(other))

    def __hash__(self) -> int:
        return hash(self._layout.contents(self))

    def __setattr__(self, name: str, value: object) -> Never:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> Never:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


class Entity(Value):
    """A value that is equal to itself alone, and not to another one with the same fields."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)
