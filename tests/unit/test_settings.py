"""The settings: where they come from, what is refused, and in which words."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import jobd.config
from jobd.config import KEYS, Loaded, Settings, env_name, flag_name, values
from jobd.config import load as load_settings
from jobd.daemon import service
from jobd.model.errors import ConfigError
from jobd.model.options import Layers
from jobd.model.queues import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLE_FILE = Path(jobd.config.__file__).with_name("jobd.toml")

# One value for each key, in range and not its default.
OTHER_VALUES: dict[str, Any] = {
    "state_dir": "/srv/jobs",
    "socket": "/srv/jobs.sock",
    "key": "/home/me/laptop.key",
    "server_key": "07" * 32,
    "path": ("/srv/code", "/srv/more"),
    "pool.workers": 3,
    "pool.preload": ("json", "os.path"),
    "pool.preload_timeout_s": 20.0,
    "pool.threads_per_worker": 3,
    "pool.kill_grace_s": 1.5,
    "pool.orphan_s": 0.0,
    "pool.max_lent": 7,
    "pool.max_jobs_per_worker": 5,
    "pool.max_worker_rss": 1 << 30,
    "pool.cgroup": "off",
    "daemon.drain_s": 2.0,
    "daemon.log_level": "debug",
    "store.durability": "off",
    "jobs.max_crashes": 0,
    "jobs.check_timeout_s": 0.5,
    "payloads.place": "disk",
    "payloads.spill": False,
    "results.keep_s": 3600.0,
    "limits.max_payload_bytes": 2048,
    "limits.max_blob_bytes": 2048,
    "limits.max_message_bytes": 65536,
    "limits.max_queued": 7,
    "limits.max_output_bytes": 0,
    "limits.max_clients": 1,
    "security.allow": ("mytasks:*", "reports.*:build"),
    "remote.listen": "tcp://127.0.0.1:9750",
    "remote.allow": ("/etc/jobd/laptop.pub", "/etc/jobd/ci.pub=read+submit"),
    "environment.inherit": ("PATH", "!A:B", "LC_*"),
}


class User:
    """A user with a home directory of their own, and the sources of settings there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {"HOME": str(home)}
        self.system_file = home / "etc" / "jobd.toml"
        self.own_file = home / ".config" / "jobd" / "jobd.toml"

    def write(self, file: Path, text: str) -> str:
        """Write a file, and return its path."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return str(file)

    def load(
        self,
        config_file: str | None = None,
        *,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Loaded:
        """Load the settings as this user, with these variables in the environment too."""
        return load_settings(
            config_file=config_file,
            flags=flags or {},
            environ=self.environ | dict(environ or {}),
            system_file=str(self.system_file),
        )

    def refused(self, *args: Any, **kwargs: Any) -> ConfigError:
        """Load settings that must be refused, and return the error."""
        with pytest.raises(ConfigError) as caught:
            self.load(*args, **kwargs)
        assert caught.value.code == 78
        assert "\n" not in str(caught.value)
        return caught.value


@pytest.fixture
def user() -> Iterator[User]:
    """A user without any file or variable of jobd's."""
    # Not tmp_path: its name grows with the run, and the default socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="jobd-") as home:
        yield User(Path(home))


def as_text(value: Any) -> str:
    """A value as it stands in an environment variable."""
    if not isinstance(value, tuple):
        return str(value)
    return ("," if any(":" in item for item in value) else ":").join(value)


def as_toml(key: str, value: Any) -> str:
    """A file with one value."""
    table, _, leaf = key.rpartition(".")
    literal = str(value).lower() if isinstance(value, bool) else repr(value)
    if isinstance(value, tuple):
        literal = repr(list(value))
    return (f"[{table}]\n" if table else "") + f"{leaf} = {literal}\n"


# --- the declaration, and what is derived from it ---


def test_the_table_of_other_values_has_every_key() -> None:
    """The tests below cover each key, also one that is declared tomorrow."""
    assert list(OTHER_VALUES) == list(KEYS)


def test_names_are_derived_from_the_key() -> None:
    """A key gives the names of its variable and of its flag."""
    assert env_name("pool.workers") == "JOBD_POOL_WORKERS"
    assert env_name("state_dir") == "JOBD_STATE_DIR"
    assert flag_name("pool.kill_grace_s") == "--kill-grace-s"
    assert flag_name("state_dir") == "--state-dir"


@pytest.mark.parametrize("name_of", [env_name, flag_name])
def test_no_two_keys_share_a_name(name_of: Any) -> None:
    """A variable or a flag means one key."""
    assert len({name_of(key) for key in KEYS}) == len(KEYS)


def test_the_example_file_has_every_key_with_its_default() -> None:
    """jobd.toml with its comment signs taken away is exactly the defaults."""
    lines = EXAMPLE_FILE.read_text(encoding="utf-8").splitlines()
    leaves = {key.rpartition(".")[2] for key in KEYS}
    settings = [line for line in lines if line.removeprefix("# ").split(" = ")[0] in leaves]
    tables = [line for line in lines if line.startswith("[")]
    assert len(settings) == len(KEYS)

    text = "\n".join(line.removeprefix("# ") for line in lines if line in settings + tables)
    written = msgspec.convert(tomllib.loads(text), Settings)
    assert values(written) == values(Settings())


def test_the_example_file_changes_nothing_as_it_is(user: User) -> None:
    """Every line of jobd.toml is commented out."""
    user.write(user.own_file, EXAMPLE_FILE.read_text(encoding="utf-8"))
    assert set(user.load().origins.values()) == {"default"}


def test_the_settings_cannot_be_changed() -> None:
    """The tree is frozen, so that no two parts of the daemon see different settings."""
    with pytest.raises(AttributeError):
        Settings().pool.workers = 3  # type: ignore[misc]  # that is what is tested


def test_no_workers_means_one_for_each_usable_core() -> None:
    """0 counts the cores that this process may use, any other number is taken as it is."""
    assert jobd.config.Pool().worker_count == len(os.sched_getaffinity(0))
    assert jobd.config.Pool(workers=3).worker_count == 3


def test_importing_the_settings_loads_nothing_slow() -> None:
    """The command line imports this at each start, so what only errors need stays out."""
    slow = ["click", "dataclasses", "difflib", "logging", "tomllib", "zmq"]
    program = f"import jobd.config, sys; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


# --- the layers ---


def test_without_any_source_all_is_default(user: User) -> None:
    """A fresh user gets the defaults, with the directories filled in."""
    loaded = user.load()
    assert set(loaded.origins) == set(KEYS)
    assert set(loaded.origins.values()) == {"default"}
    filled_in = {
        "state_dir": f"{user.home}/.local/state/jobd",
        "socket": f"{user.home}/.local/state/jobd/client.sock",
    }
    assert values(loaded.settings) == values(Settings()) | filled_in


@pytest.mark.parametrize("key", KEYS)
def test_each_key_can_come_from_a_file(user: User, key: str) -> None:
    """A value in a file arrives, and its origin is the file's path."""
    text = as_toml(key, OTHER_VALUES[key])
    if key == "limits.max_message_bytes":
        text += "max_payload_bytes = 1024\n"
    file = user.write(user.own_file, text)
    loaded = user.load()
    assert values(loaded.settings)[key] == OTHER_VALUES[key]
    assert loaded.origins[key] == file


def test_each_key_can_come_from_the_environment(user: User) -> None:
    """A variable's text becomes the declared type, and the origin names the variable."""
    loaded = user.load(
        environ={env_name(key): as_text(value) for key, value in OTHER_VALUES.items()}
    )
    assert values(loaded.settings) == OTHER_VALUES
    assert loaded.origins == {key: f"environment ({env_name(key)})" for key in KEYS}


def test_each_key_can_come_from_a_flag(user: User) -> None:
    """A flag's value arrives, and the origin is the flag."""
    loaded = user.load(flags=OTHER_VALUES)
    assert values(loaded.settings) == OTHER_VALUES
    assert loaded.origins == {key: flag_name(key) for key in KEYS}


def test_a_later_source_wins_key_by_key(user: User) -> None:
    """System file, own file, named file, environment, flag: the last that speaks is heard."""
    files = [user.system_file, user.own_file, user.home / "named.toml"]
    keys = ["daemon.drain_s", "pool.kill_grace_s", "pool.orphan_s", "jobs.check_timeout_s"]
    keys.append("pool.workers")
    for number, file in enumerate(files, start=1):
        tables = [as_toml(key, number).split("\n")[:2] for key in keys[number - 1 :]]
        text = "".join(f"{table.strip('[]')}.{line}\n" for table, line in tables)
        user.write(file, text)

    loaded = user.load(
        config_file=str(files[2]),
        flags={"pool.workers": 5, "jobs.check_timeout_s": None},
        environ={"JOBD_POOL_WORKERS": "4", "JOBD_JOBS_CHECK_TIMEOUT_S": "4"},
    )

    found = values(loaded.settings)
    assert [found[key] for key in keys] == [1, 2, 3, 4, 5]
    assert [loaded.origins[key] for key in keys] == [
        *map(str, files),
        "environment (JOBD_JOBS_CHECK_TIMEOUT_S)",
        "--workers",
    ]


def test_a_variable_names_the_file_where_no_flag_does(user: User) -> None:
    """JOBD_CONFIG stands in for --config, which goes before it."""
    named = user.write(user.home / "named.toml", "pool.workers = 1")
    other = user.write(user.home / "other.toml", "pool.workers = 2")
    assert user.load(environ={"JOBD_CONFIG": other}).settings.pool.workers == 2
    assert user.load(config_file=named, environ={"JOBD_CONFIG": other}).settings.pool.workers == 1


def test_an_empty_variable_counts_as_not_set(user: User) -> None:
    """An empty value is how a unit file or a shell takes a variable back."""
    loaded = user.load(
        environ={"JOBD_POOL_WORKERS": "", "JOBD_CONFIG": "", "JOBD_POOL_NONSENSE": ""}
    )
    assert loaded.origins["pool.workers"] == "default"


@pytest.mark.parametrize("name", ["JOBD_FAILPOINT", "JOBD_SUBMIT_QUEUE", "JOBD_JOB_ID"])
def test_variables_of_other_parts_are_left_alone(user: User, name: str) -> None:
    """Not every variable that begins with JOBD_ is a setting."""
    assert user.load(environ={name: "x"}).origins == user.load().origins


# --- what is refused, and how it is said ---


def test_an_unknown_key_is_told_with_the_nearest_one(user: User) -> None:
    """A misspelled key is an error that names the file, the key and what was meant."""
    file = user.write(user.own_file, "[pool]\nworker = 2\n")
    error = user.refused()
    assert error.message == f"{file}: unknown key 'pool.worker'"
    assert error.hint == "did you mean pool.workers?"


@pytest.mark.parametrize(
    ("text", "unknown", "meant"),
    [
        ("[pol]\nworkers = 2", "pol.workers", "pool.workers"),
        ("statedir = 'x'", "statedir", "state_dir"),
        ("workers = 2", "workers", "pool.workers"),
        ("[pool]\nwrokers = 1", "pool.wrokers", "pool.workers"),
        ("[stores]", "stores", "store.durability"),
    ],
)
def test_other_ways_to_misspell(user: User, text: str, unknown: str, meant: str) -> None:
    """The nearest key is found for a table, a top-level name and a lost table, too."""
    user.write(user.own_file, text)
    error = user.refused()
    assert repr(unknown) in error.message
    assert meant in error.hint or "config show" in error.hint


def test_a_key_like_no_other_points_to_the_list(user: User) -> None:
    """Where nothing is near, the hint says where the keys are listed."""
    user.write(user.own_file, "qqq = 1")
    assert "jobd config show" in user.refused().hint


def test_an_unknown_variable_of_a_table_is_refused(user: User) -> None:
    """A misspelled variable must not be ignored in silence."""
    error = user.refused(environ={"JOBD_POOL_WORKER": "2"})
    assert error.message == "unknown environment variable 'JOBD_POOL_WORKER'"
    assert error.hint == "did you mean JOBD_POOL_WORKERS?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pool.workers = -1", "pool.workers must be a whole number from 0 to 4096, not -1"),
        ("pool.workers = 2.5", "pool.workers must be a whole number from 0 to 4096, not 2.5"),
        ("pool.workers = true", "pool.workers must be a whole number from 0 to 4096, not True"),
        ("pool.workers = '2'", "pool.workers must be a whole number from 0 to 4096, not '2'"),
        ("pool.preload = 'json'", "pool.preload must be a list of texts, not 'json'"),
        ("pool.preload = [1]", "pool.preload must be a list of texts, not [1]"),
        ("pool.preload = ['a-b']", "pool.preload must be names of modules, and 'a-b' is none"),
        ("pool.preload = ['']", "pool.preload must be names of modules, and '' is none"),
        ("pool.kill_grace_s = nan", "pool.kill_grace_s must be a number from 0 to 86400, not nan"),
        ("pool.orphan_s = inf", "pool.orphan_s must be a number from 0 to 86400, not inf"),
        (
            "jobs.check_timeout_s = 0",
            "jobs.check_timeout_s must be a number above 0, at most 3600, not 0",
        ),
        (
            "store.durability = 'on'",
            "store.durability must be one of 'full', 'normal', 'off', not 'on'",
        ),
        ("daemon.log_level = 3", "daemon.log_level must be one of 'debug', 'info', 'warning'"),
        ("state_dir = 3", "state_dir must be a text, not 3"),
        ("[state_dir]", "state_dir must be a text, not a table"),
        ("path = '/x'", "path must be a list of texts, not '/x'"),
        ("pool = 3", "pool must be a table"),
        ("pool.workers =", "not valid TOML: "),
        ("a = " + "[" * 10_000, "not valid TOML: "),
    ],
)
def test_a_value_that_cannot_be_used_is_told_in_one_sentence(
    user: User, text: str, message: str
) -> None:
    """Type, range and form: the error names the file, the key, what is right and what it got."""
    file = user.write(user.own_file, text)
    assert user.refused().message.startswith(f"{file}: {message}")


def test_a_file_that_is_not_utf8_is_refused(user: User) -> None:
    """TOML is UTF-8, and anything else is said to be no TOML."""
    Path(user.write(user.own_file, "")).write_bytes(b"state_dir = '\xff'")
    assert "not valid TOML" in user.refused().message


def test_a_bad_value_names_its_variable_or_flag(user: User) -> None:
    """Where no file is to blame, the error begins with the variable or the flag."""
    assert user.refused(environ={"JOBD_POOL_WORKERS": "many"}).message.startswith(
        "JOBD_POOL_WORKERS must be"
    )
    assert user.refused(environ={"JOBD_POOL_KILL_GRACE_S": "nan"}).message.endswith("not 'nan'")
    refused = user.refused(flags={"pool.workers": -1})
    assert refused.message == "--workers must be a whole number from 0 to 4096, not -1"


def test_a_long_or_wild_value_is_shown_short_and_printable(user: User) -> None:
    """An error fits a line, and brings no control character to a terminal."""
    message = user.refused(environ={"JOBD_POOL_WORKERS": "\x1b[31m" + "x" * 1000}).message
    assert len(message) < 200
    assert message.isprintable()


def test_the_named_file_must_exist(user: User) -> None:
    """A file that somebody asked for is not skipped."""
    missing = str(user.home / "missing.toml")
    assert user.refused(missing).message == f"{missing}: there is no such file"
    assert user.refused(missing).hint == "--config names it"
    assert user.refused(environ={"JOBD_CONFIG": missing}).hint == "JOBD_CONFIG names it"


def test_a_file_that_cannot_be_read_is_an_error(user: User) -> None:
    """What may hold settings must not be skipped in silence, even by default."""
    user.own_file.mkdir(parents=True)
    assert user.refused().message == f"{user.own_file}: cannot be read: Is a directory"


def test_a_message_must_hold_a_payload(user: User) -> None:
    """Two limits that contradict each other are refused, and both origins told."""
    file = user.write(user.own_file, "limits.max_message_bytes = 65536")
    error = user.refused()
    assert "limits.max_message_bytes (65536) must not be less than" in error.message
    assert error.hint == f"the first is set by: {file}; the second by: default"


# --- directories and sockets ---


def test_systemd_gives_the_state_directory(user: User) -> None:
    """The first of a unit's state directories is the default, before the user's own."""
    settings = user.load(environ={"STATE_DIRECTORY": "/var/lib/jobd:/var/lib/other"}).settings
    assert settings.state_dir == "/var/lib/jobd"
    assert settings.socket == "/var/lib/jobd/client.sock"


def test_the_xdg_directories_are_followed(user: User) -> None:
    """State and configuration are where the user's XDG variables say."""
    user.write(user.home / "conf" / "jobd" / "jobd.toml", "pool.workers = 3")
    loaded = user.load(
        environ={"XDG_STATE_HOME": f"{user.home}/state", "XDG_CONFIG_HOME": f"{user.home}/conf"}
    )
    assert loaded.settings.state_dir == f"{user.home}/state/jobd"
    assert loaded.settings.pool.workers == 3


def test_a_relative_xdg_directory_is_ignored(user: User) -> None:
    """The XDG standard calls a relative path invalid."""
    settings = user.load(environ={"XDG_STATE_HOME": "state"}).settings
    assert settings.state_dir == f"{user.home}/.local/state/jobd"


def test_the_socket_is_in_the_runtime_directory(user: User) -> None:
    """The user's own daemon is reached where the session keeps its sockets."""
    settings = user.load(environ={"XDG_RUNTIME_DIR": str(user.home)}).settings
    assert settings.socket == f"{user.home}/jobd/client.sock"
    assert settings.worker_socket == f"{user.home}/jobd/client.sock.workers"


def test_naming_the_default_state_directory_changes_no_socket(user: User) -> None:
    """The socket depends on which directory it is, not on how it came to be chosen."""
    named = user.load(
        flags={"state_dir": "~/.local/state/jobd/"}, environ={"XDG_RUNTIME_DIR": str(user.home)}
    )
    assert named.settings.socket == f"{user.home}/jobd/client.sock"


@pytest.mark.parametrize("variable", ["JOBD_STATE_DIR", "STATE_DIRECTORY"])
def test_another_state_directory_has_its_own_socket(user: User, variable: str) -> None:
    """Daemons live side by side, so a second one does not take the first one's socket."""
    settings = user.load(
        environ={variable: "/srv/other", "XDG_RUNTIME_DIR": str(user.home)}
    ).settings
    assert settings.socket == "/srv/other/client.sock"


@pytest.mark.parametrize("runtime_dir", ["", "relative", "/does/not/exist"])
def test_a_runtime_directory_that_is_none_is_not_used(user: User, runtime_dir: str) -> None:
    """A variable left over from another session must not break the default."""
    settings = user.load(environ={"XDG_RUNTIME_DIR": runtime_dir}).settings
    assert settings.socket == f"{settings.state_dir}/client.sock"


def test_a_socket_path_may_be_just_short_enough(user: User) -> None:
    """The workers' socket, the longer of the two, may have 107 bytes."""
    socket = "/" + "s" * 98
    settings = user.load(environ={"JOBD_SOCKET": socket}).settings
    assert settings.socket == socket
    assert len(os.fsencode(settings.worker_socket)) == 107


@pytest.mark.parametrize("socket", ["/" + "s" * 99, "/" + "s" * 97 + "\N{SNOWMAN}"])
def test_a_socket_path_that_is_too_long_is_refused(user: User, socket: str) -> None:
    """The error tells the length in bytes, the bound, and the way out."""
    error = user.refused(environ={"JOBD_SOCKET": socket})
    size = len(os.fsencode(socket + ".workers"))
    assert f"has {size} bytes, and the system allows 107" in error.message
    assert "--socket" in error.hint


def test_paths_are_made_absolute(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~`` is the home; a relative path counts from its file, or where the command runs."""
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    user.write(user.own_file, "state_dir = '../state'\npath = ['.', '~/code', '/srv//x/']")
    settings = user.load(flags={"socket": "run/../a.sock"}).settings
    assert settings.state_dir == f"{user.home}/.config/state"
    assert settings.path == (f"{user.home}/.config/jobd", f"{user.home}/code", "/srv/x")
    assert settings.socket == f"{current}/a.sock"


def test_another_users_home_is_expanded(user: User) -> None:
    """``~root`` is looked up, and a user that does not exist is an error."""
    assert user.load(environ={"JOBD_STATE_DIR": "~root/x"}).settings.state_dir.endswith("/x")
    error = user.refused(environ={"JOBD_STATE_DIR": "~no-such-user/x"})
    assert error.message == "JOBD_STATE_DIR: cannot tell the home directory in ~no-such-user/x"
    assert error.hint == "is there a user no-such-user?"


def test_a_nul_in_a_path_is_refused(user: User) -> None:
    """No file system has such a name; the error says so before anything is opened."""
    user.write(user.own_file, 'state_dir = "a\\u0000b"')
    assert "NUL" in user.refused().message


def test_an_empty_path_in_a_file_is_the_default(user: User) -> None:
    """The example file says that "" stands for the default; so it does."""
    user.write(user.system_file, "state_dir = '/srv/jobs'")
    user.write(user.own_file, "state_dir = ''")
    assert user.load().settings.state_dir == f"{user.home}/.local/state/jobd"


def test_an_empty_flag_is_refused(user: User) -> None:
    """``--state-dir "$UNSET"`` is a mistake, not a wish for the default."""
    assert user.refused(flags={"state_dir": ""}).message == "--state-dir must not be empty"


@pytest.mark.parametrize("pattern", ["*", "mytasks", "a:b:c", "mytasks.*"])
def test_a_pattern_that_is_none_of_references_is_refused(user: User, pattern: str) -> None:
    """A list that was split at the wrong place would allow more than was meant."""
    error = user.refused(environ={"JOBD_SECURITY_ALLOW": f"mytasks:ok,{pattern}"})
    assert "JOBD_SECURITY_ALLOW must be patterns of references" in str(error)


# -- queues --


def test_a_table_makes_a_queue_with_or_without_rules(user: User) -> None:
    """Its rules are checked as those of ``jobd queue set``, and are no defaults of its jobs."""
    text = '[queues.etl]\nslots = 2\nrate = "100/m"\nretries = 3\n[queues.mail]\n'
    user.write(user.own_file, text)
    settings = user.load().settings
    assert service.rules_of(settings) == {"etl": Rule(2, "100/m"), "mail": Rule()}
    assert Layers.of(settings.rules).queues == {"etl": {"retries": 3}, "mail": {}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[queues.etl]\nslots = -1", "queues.etl.slots: -1 is out of range"),
        ("[queues.etl]\nrate = 10", "queues.etl.rate: '10' is not a rate"),
        ("[queues.etl]\npaused = true", "queues.etl.paused: there is no option 'paused'"),
        ('[queues.""]', "queues.: '' is no name here"),
        ("[defaults]\nslots = 1", "defaults.slots: there is no option 'slots'"),
        ("[queues]\netl = 2", "queues.etl must be a table"),
    ],
)
def test_bad_rules_of_queues_are_refused(user: User, text: str, sentence: str) -> None:
    """With the file and the key."""
    user.write(user.own_file, text)
    assert f"{user.own_file}: {sentence}" in user.refused().message


@pytest.mark.parametrize("socket", ["tcp://host:9750", "ssh://me@host"])
def test_a_daemon_elsewhere_has_no_path(user: User, socket: str) -> None:
    """Where it is stays as it was said."""
    assert user.load(environ={"JOBD_SOCKET": socket}).settings.socket == socket


def test_keys_lie_beside_the_file_that_names_them(user: User) -> None:
    """With what they may do."""
    user.write(user.own_file, '[remote]\nallow = ["ci.pub=read+submit"]\n')
    (entry,) = user.load().settings.remote.allow
    assert entry == f"{user.own_file.parent}/ci.pub=read+submit"
