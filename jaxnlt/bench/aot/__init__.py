"""What a run would cost on TPUs that are not there, by their compiler."""
