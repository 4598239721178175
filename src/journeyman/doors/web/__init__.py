"""What the doors that speak HTTP share: the guard in front of them, and how they read what comes in."""
