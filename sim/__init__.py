"""Physics, parametric and imported objects, and grasp synthesis on MuJoCo."""
