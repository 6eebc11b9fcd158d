"""Prediction records and late labels become a decision to retrain, promote or keep."""
