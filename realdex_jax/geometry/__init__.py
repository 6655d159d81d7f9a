"""Objects as shapes, meshes, point clouds and distance grids."""
