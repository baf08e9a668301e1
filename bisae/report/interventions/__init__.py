"""The report of interventions: tables, figures, generations."""
