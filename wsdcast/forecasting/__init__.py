"""From trained networks to ensembles: how a sample is drawn, how members are batched, how forecasts from many starts are run."""
