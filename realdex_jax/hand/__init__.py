"""The Shadow Hand: joints, kinematics, surface, distances, torques."""
