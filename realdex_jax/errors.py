"""Every mistake a user can make, one class per kind; messages name the value, the rule and the choices."""


class RealdexError(ValueError):
    """Base of all errors that realdex_jax and its sibling packages raise on purpose."""


class MeshError(RealdexError):
    """A mesh file, or a mesh in memory, that cannot serve as an object."""


class CloudError(RealdexError):
    """A point cloud that cannot serve as an object."""


class JointError(RealdexError):
    """Joint names or angles that do not fit the hand."""


class HandError(RealdexError):
    """A hand model that cannot be loaded or used as asked."""
