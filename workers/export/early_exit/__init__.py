"""An early exit: examples whose class is clear after some block leave the model there."""
