"""The data lake of MAmmoTH-VL and its Dagster graph. Imports no torch."""
