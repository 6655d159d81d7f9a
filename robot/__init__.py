"""From a chosen grasp to a lifted object on UR10e and Shadow Hand, simulated or real."""
