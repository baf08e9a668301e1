"""The settings of each command, typed: what is checked before a command does anything."""
