"""One class per kind of user mistake; messages name the value, the rule and the choices."""


class RealdexError(ValueError):
    """Base of all errors that realdex_jax and its sibling packages raise on purpose."""


class MeshError(RealdexError):
    """A mesh file, or a mesh in memory, that cannot serve as an object."""


class CloudError(RealdexError):
    """A point cloud that cannot serve as an object."""


class ConfigError(RealdexError):
    """A setting of a command that makes no sense."""


class JointError(RealdexError):
    """Joint names or angles that do not fit the hand."""


class HandError(RealdexError):
    """A hand model that cannot be loaded or used as asked."""


class CheckpointError(RealdexError):
    """A checkpoint that cannot be written, or does not fit the model it should fill."""


class TrainingError(RealdexError):
    """Training that cannot go on: a loss that is not finite, or a setting that makes no sense."""


class PhysicsError(RealdexError):
    """An object, a pose or a grasp that physics cannot simulate."""


class DatasetError(RealdexError):
    """A dataset file or record that does not keep its format."""


class UnsafePickleError(DatasetError):
    """A pickle that asks for more than plain arrays, numbers and containers; none of it ran."""


class UnknownObjectError(RealdexError):
    """An object name that is not in the catalogue."""


class DecompositionError(RealdexError):
    """A mesh that could not be split into convex pieces."""
