"""Export of a policy: the files of the artifact, and the proof that they are what was searched."""
