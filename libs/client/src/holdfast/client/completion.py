"""Shell completion, made from the commands themselves: what there is to complete, and as a script for each shell.

The scripts hold everything, so that a Tab starts no Python. They ask the API nothing.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args

__all__ = ["Command", "Option", "commands_of", "script"]

PROGRAM = "holdfast"


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or (without names) the positional argument."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    values: tuple[str, ...]
    """What it may be; empty where anything may be."""
    is_file: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words after the program's name, what may follow them, and its options."""

    path: tuple[str, ...]
    subcommands: tuple[tuple[str, str], ...]
    """Name and help of each."""
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]

    @property
    def words(self) -> str:
        """The program's name and the path."""
        return " ".join([PROGRAM, *self.path])


def commands_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[Command]:
    """A command and all those below it.

    Args:
        command: what ``typer.main.get_command`` returns, or one of its ``commands``.
    """
    below: dict[str, Any] = {name: each for name, each in getattr(command, "commands", {}).items() if not each.hidden}
    parameters = [each for each in command.params if not getattr(each, "hidden", False)]
    options = tuple(_option(each) for each in parameters if each.param_type_name == "option")
    yield Command(
        path,
        tuple((name, _line(each.get_short_help_str(60))) for name, each in below.items()),
        (*options, Option(("--help",), "Show this message and exit.", takes_value=False, values=(), is_file=False)),
        tuple(_option(each) for each in parameters if each.param_type_name == "argument"),
    )
    for name, each in below.items():
        yield from commands_of(each, (*path, name))


def _option(parameter: Any) -> Option:
    kind = _kind(parameter)
    values = tuple(str(each.value) for each in kind) if isinstance(kind, type) and issubclass(kind, Enum) else ()
    is_option = parameter.param_type_name == "option"
    return Option(
        names=tuple(sorted((*parameter.opts, *parameter.secondary_opts), reverse=True)) if is_option else (),
        help=_line(getattr(parameter, "help", None) or ""),
        takes_value=not getattr(parameter, "is_flag", False),
        values=values,
        is_file=kind is Path or parameter.name == "data",
    )


def _kind(parameter: Any) -> Any:
    """The type of a parameter, or of its items. Typer keeps it where a release puts it, and exports it nowhere."""
    if (described := getattr(parameter, "type_descriptor", None)) is not None:
        return next(iter(get_args(described.annotation)), described.annotation)
    known: Any = getattr(parameter.type, "original_choices", None) or getattr(parameter.type, "choices", ())
    return next((type(each) for each in known), getattr(parameter.type, "path_type", None))


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def script(shell: str, commands: Sequence[Command]) -> str:
    """The completion script for ``bash``, ``zsh`` or ``fish``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


def _patterns(command: Command, option: Option) -> str:
    return "|".join(shlex.quote(f"{command.words} {name}") for name in option.names)


def _known(commands: Sequence[Command]) -> str:
    return "|".join(shlex.quote(each.words) for each in commands if each.path)


def _valued(commands: Sequence[Command]) -> Iterator[tuple[str, Option]]:
    for command in commands:
        for option in command.options:
            if option.takes_value:
                yield _patterns(command, option), option


def _following(command: Command) -> list[str]:
    """What may come next beside options: subcommands and values of arguments."""
    arguments = [value for argument in command.arguments for value in argument.values]
    return [*(name for name, _ in command.subcommands), *arguments]


def _bash(commands: Sequence[Command]) -> str:
    lines = []
    for patterns, option in _valued(commands):
        if option.values:
            action = f"wanted={shlex.quote(' '.join(option.values))}"
        else:
            action = "compopt -o default; return" if option.is_file else "return"
        lines.append(f"        {patterns}) {action} ;;")
    rest = []
    for command in commands:
        following, options = (
            " ".join(_following(command)),
            " ".join(name for each in command.options for name in each.names),
        )
        rest.append(
            f"        {shlex.quote(command.words)}) wanted={shlex.quote(following)} options={shlex.quote(options)} ;;"
        )
    return _BASH.replace("@KNOWN@", _known(commands)).replace("@VALUES@", "\n".join(lines)).replace(
        "@WORDS@", "\n".join(rest)
    )  # fmt: skip


_BASH = r"""# bash completion for holdfast: eval "$(holdfast completion bash)"
_holdfast() {
    # The line, not COMP_WORDS: bash breaks words at colons, which topics and scopes have.
    local line="${COMP_LINE:0:COMP_POINT}" path=holdfast wanted='' options='' current='' previous word
    local -a words
    read -ra words <<< "$line"
    if [[ $line != *[[:space:]] ]]; then
        current="${words[${#words[@]} - 1]}"
        unset "words[${#words[@]} - 1]"
    fi
    previous="${words[${#words[@]} - 1]}"
    for word in "${words[@]:1}"; do
        case "$path $word" in
            @KNOWN@) path="$path $word" ;;
        esac
    done
    COMPREPLY=()
    case "$path $previous" in
@VALUES@
    esac
    [[ -n $wanted ]] || case "$path" in
@WORDS@
    esac
    [[ -z $options || ( -n $wanted && $current != -* ) ]] || wanted="$options"
    local colons="${current%"${current##*:}"}"
    while read -r word; do
        COMPREPLY+=("${word#"$colons"}")
    done < <(compgen -W "$wanted" -- "$current")
}
complete -F _holdfast holdfast
"""


def _described(pairs: Sequence[tuple[str, str]]) -> str:
    escaped = (
        f"{name.replace(':', chr(92) + ':')}:{help_}" if help_ else name.replace(":", "\\:") for name, help_ in pairs
    )
    return " ".join(map(shlex.quote, escaped))


def _zsh(commands: Sequence[Command]) -> str:
    lines = []
    for patterns, option in _valued(commands):
        if option.values:
            action = f"found=({' '.join(map(shlex.quote, option.values))}); compadd -a found; return"
        else:
            action = "_files; return" if option.is_file else "_message value; return"
        lines.append(f"        ({patterns}) {action} ;;")
    rest = []
    for command in commands:
        arguments = [(value, "") for argument in command.arguments for value in argument.values]
        options = [(name, option.help) for option in command.options for name in option.names]
        found = f"found=({_described([*command.subcommands, *arguments])}); options=({_described(options)})"
        rest.append(f"        ({shlex.quote(command.words)}) {found} ;;")
    return _ZSH.replace("@KNOWN@", _known(commands)).replace("@VALUES@", "\n".join(lines)).replace(
        "@WORDS@", "\n".join(rest)
    )  # fmt: skip


_ZSH = r"""#compdef holdfast
# zsh completion for holdfast: eval "$(holdfast completion zsh)" after compinit, or a file _holdfast in $fpath
_holdfast() {
    local at=holdfast i
    local -a found options
    for ((i = 2; i < CURRENT; i++)); do
        case "$at ${words[i]}" in
            (@KNOWN@) at="$at ${words[i]}" ;;
        esac
    done
    case "$at ${words[CURRENT - 1]}" in
@VALUES@
    esac
    case "$at" in
@WORDS@
    esac
    i=1
    [[ ${#found} -eq 0 ]] || _describe command found && i=0
    _describe -o option options && i=0
    return i
}
if [[ $funcstack[1] == _holdfast ]]; then _holdfast "$@"; else compdef _holdfast holdfast; fi
"""


def _fish(commands: Sequence[Command]) -> str:
    known = " ".join(shlex.quote(" ".join(each.path)) for each in commands if each.path)
    lines = [_FISH.replace("@KNOWN@", known)]
    for command in commands:
        begin = f"complete -c {PROGRAM} -n {shlex.quote('__holdfast_at ' + shlex.quote(' '.join(command.path)))}"
        arguments = [(value, "") for argument in command.arguments for value in argument.values]
        lines += [
            f"{begin} -a {_fish_quoted(name)}{_fish_help(help_)}" for name, help_ in (*command.subcommands, *arguments)
        ]
        lines += [f"{begin} {_fish_option(option)}" for option in command.options]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    if not option.takes_value:
        return names + _fish_help(option.help)
    values = (
        " -x -a " + _fish_quoted(" ".join(option.values)) if option.values else (" -r -F" if option.is_file else " -x")
    )
    return names + values + _fish_help(option.help)


def _fish_help(text: str) -> str:
    return f" -d {_fish_quoted(text)}" if text else ""


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_FISH = r"""# fish completion for holdfast: holdfast completion fish | source
function __holdfast_at --argument-names wanted
    set -l at ''
    for word in (commandline -opc)[2..]
        set -l next (string trim -- "$at $word")
        contains -- "$next" @KNOWN@; and set at "$next"
    end
    test "$at" = "$wanted"
end
complete -c holdfast -f"""
