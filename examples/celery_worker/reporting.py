"""The client of the shop and of the worker: a run goes along with the tasks that it sends, and goes on where they run."""

from failpath_otel import FailpathClient
from failpath_otel.integrations.celery import connect

failpath = FailpathClient()
connect(failpath)
