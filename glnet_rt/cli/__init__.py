"""The command line `glnet-rt`: one file per subcommand. Heavy imports wait inside the commands."""
