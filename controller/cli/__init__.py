"""The command line. Nothing heavy is imported before a command needs it."""

from controller.cli.app import main as main
