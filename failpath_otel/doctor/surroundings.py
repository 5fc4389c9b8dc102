"""How the service is run: processes that fork or freeze, and proxies."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from failpath_otel.doctor.finding import Finding, ok, warning
from failpath_otel.doctor.uwsgi import judge_uwsgi
from failpath_otel.doctor.versions import VersionOf, installed
from failpath_otel.endpoint import Tls, is_loopback

_PRELOAD: Final = re.compile(r"^\s*preload_app\s*=\s*True\b", re.MULTILINE)
_FREEZING: Final = {
    "AWS_LAMBDA_FUNCTION_NAME": "AWS Lambda",
    "FUNCTION_TARGET": "Google Cloud Functions",
    "FUNCTIONS_WORKER_RUNTIME": "Azure Functions",
    "K_SERVICE": "Cloud Run",
}


def judge_processes(environ: Mapping[str, str], folder: Path, version_of: VersionOf = installed) -> Iterator[Finding]:
    """Findings about the way in which processes come to be."""
    uwsgi = list(judge_uwsgi(environ, folder, version_of))
    yield from uwsgi
    frozen = [name for variable, name in _FREEZING.items() if environ.get(variable)]
    if frozen:
        yield warning(
            "processes",
            f"this looks like {frozen[0]}",
            "A process that is frozen after its answer sends nothing meanwhile, and may never wake.",
            'Call client.flush(timeout_millis=…) before the answer, or set FAILPATH_DELIVERY="await".',
        )
    airflow = version_of("apache-airflow-core") or version_of("apache-airflow")
    if airflow:
        yield warning(
            "processes",
            f"Airflow {airflow} is installed",
            "The process of a task ends by os._exit, without exit handlers: what it recorded in the last 200 ms is lost.",
            'Call client.flush() as the last thing that the task does, or set FAILPATH_DELIVERY="await".',
        )
    where = _preloads(environ, folder)
    if where:
        yield ok("processes", f"gunicorn preloads the application ({where}); after a fork each worker sends for itself")
    elif not uwsgi and not frozen and not airflow:
        yield ok("processes", "no sign of a server that forks or freezes; gunicorn, uvicorn and multiprocessing need nothing")


def _preloads(environ: Mapping[str, str], folder: Path) -> str:
    if "--preload" in environ.get("GUNICORN_CMD_ARGS", "").split():
        return "GUNICORN_CMD_ARGS"
    try:
        text = (folder / "gunicorn.conf.py").read_text("utf-8", "replace")
    except OSError:
        return ""
    return "gunicorn.conf.py" if _PRELOAD.search(text) else ""


def judge_django(environ: Mapping[str, str], folder: Path, version_of: VersionOf = installed) -> Iterator[Finding]:
    """Whether Django's instrumentation finds the settings; nothing where this is no Django project."""
    instrumentation = "opentelemetry-instrumentation-django"
    disabled = [name.strip() for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")]
    if not (folder / "manage.py").is_file() or not version_of(instrumentation) or "django" in disabled:
        return
    settings = environ.get("DJANGO_SETTINGS_MODULE")
    if settings:
        yield ok("django", f"DJANGO_SETTINGS_MODULE is {settings}")
        return
    yield warning(
        "django",
        f"there is a manage.py and {instrumentation}, but DJANGO_SETTINGS_MODULE is not in the environment",
        "opentelemetry-instrument configures Django before manage.py or wsgi.py name the settings: it gets empty ones.",
        "Set DJANGO_SETTINGS_MODULE to the settings that manage.py names.",
    )


def judge_trust(endpoint: str, tls: Tls, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whom requests to the endpoint trust; nothing where they go without TLS."""
    if not endpoint.startswith("https:"):
        return
    trust = tls.trust(environ)
    for reason in trust.passed_over:
        yield warning(
            "tls",
            f"no certificates to trust come from {reason}",
            "The variable is passed over, and authorities of your own may be missing.",
            f"Correct or unset it, or name the file by {tls.option}.",
        )
    yield ok("tls", f"the certificate of {endpoint} is held against {trust.path}, named by {trust.named_by}")


def judge_proxy(endpoint: str) -> Finding:
    """Whether requests to the endpoint go through a proxy of the environment."""
    parts = urlsplit(endpoint)
    if is_loopback(endpoint):
        return ok("proxy", f"{endpoint} is on this machine and reached directly")
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return ok("proxy", f"none for {parts.hostname}")
    place = urlsplit(proxy if "://" in proxy else f"//{proxy}")
    return ok("proxy", f"{parts.hostname} is reached through {place.netloc.rpartition('@')[2]}, as the environment says")
