"""Text that is safe to send, whatever objects it is taken from."""

from __future__ import annotations

_module_of = type.__dict__["__module__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__


def utf8(text: str) -> str:
    """A plain `str` that can be encoded; lone surrogates become backslash escapes."""
    if str.isascii(text):
        return str.__str__(text)
    return str.encode(text, "utf-8", "backslashreplace").decode()


def type_name(cls: type) -> tuple[str, str]:
    """Module and qualified name of a class, asked past its metaclass, which may be hostile."""
    try:
        module = _module_of(cls)
    except AttributeError:  # made by code whose globals have no __name__
        module = None
    # Both may be set, to a subclass of str as well.
    return (module if type(module) is str else "?"), str.__str__(_qualname_of(cls))


def message_of(error: BaseException) -> str:
    """What `str()` of an exception gives, which is user code, or why it gives nothing."""
    try:
        return utf8(str(error))
    except BaseException as failure:  # also what ends a process: this is being rendered only
        names = [utf8(type_name(type(raised))[1]) for raised in (error, failure)]
        return "<str() of this {} raised {}>".format(*names)
