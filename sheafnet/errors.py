"""Everything that sheafnet raises on purpose, and the exit code that each becomes.

    SheafnetError                     1   (never raised itself)
    ├── InputError                    2   a file, key, option or array that the user can mend
    │   ├── ConfigError               2   the YAML: unknown key, bad value, impossible graph
    │   ├── DatasetError              2   unknown data set, missing or unusable arrays
    │   ├── RunDirectoryError         2   cannot be written, or is not a run
    │   ├── StudyError                2   the folder of a study or a file of it cannot be written
    │   ├── BenchError                2   no such part of the benchmark, or no such results file
    │   └── ClusterError              2   no Ray answers, or its machines cannot run the network
    ├── DivergenceError               3   a loss became NaN or infinite
    ├── AccountingError               4   bytes sent and bytes received disagree (law 4)
    ├── NetworkError                  5   a part of the running network failed
    │   ├── ProtocolError             5   a frame that must not be: shape, edge, run, incarnation
    │   │   └── FrameError            5   bytes that are no frame
    │   ├── DeadlineError             5   a wait ended without the message or the report
    │   ├── ConnectionLost            5   two hosts do not reach each other any more
    │   └── ActorError                5   an actor process could not be started
    │       └── ActorDied             5   an actor process died
    ├── PluginError                   6   the code of a plug-in failed
    └── Interrupted                 130   Ctrl-C

Exit code 1 is left to defects of sheafnet itself: those keep their traceback.
"""


class SheafnetError(Exception):
    """Base of all intended errors; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(SheafnetError):
    """Something that the user gave is wrong; the message says where and what to do."""

    exit_code = 2


class ConfigError(InputError):
    """The topology file or an override is wrong."""


class DatasetError(InputError):
    """A data set is unknown, missing or unusable."""


class RunDirectoryError(InputError):
    """A run directory cannot be written, or a folder is not a run."""


class StudyError(InputError):
    """The folder of a study, or a table or plot of it, cannot be written."""


class BenchError(InputError):
    """The benchmark has no such part, or a results file cannot be read or written."""


class ClusterError(InputError):
    """The Ray cluster cannot be reached or lacks what the run needs."""


class DivergenceError(SheafnetError):
    """A loss became NaN or infinite; names node, edge and round."""

    exit_code = 3


class AccountingError(SheafnetError):
    """Sent and received bytes of a directed edge and round do not balance (law 4)."""

    exit_code = 4


class NetworkError(SheafnetError):
    """A part of the running network failed."""

    exit_code = 5


class ProtocolError(NetworkError):
    """A frame that its edge does not allow: wrong shape, sender, run or incarnation."""


class FrameError(ProtocolError):
    """Bytes that are not a frame. `edge` is the edge index where it could still be read."""

    def __init__(self, message: str, edge: int | None = None) -> None:
        super().__init__(message if edge is None else f"{message} (edge {edge})")
        self.edge = edge


class DeadlineError(NetworkError):
    """A wait reached its deadline."""


class ConnectionLost(NetworkError):
    """What a host sent to another one may not have arrived; both are mended by going back."""


class ActorError(NetworkError):
    """An actor process could not be started, or failed."""


class ActorDied(ActorError):
    """An actor process ended while it was needed; another one can take its place."""


class PluginError(SheafnetError):
    """Code that is not of sheafnet failed; names the plug-in, its file and line, and the node."""

    exit_code = 6


class Interrupted(SheafnetError):
    """The user pressed Ctrl-C; what has been measured is kept."""

    exit_code = 130
