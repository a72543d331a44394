"""Which URL and headers reach a deployment's provider?

Pure. A provider is a row: OpenAI, OpenRouter, Groq, Mistral, DeepSeek, xAI, Together, vLLM, llama.cpp and Ollama share
one addressing; Azure OpenAI puts the deployment into the path and the version into the query.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from policies.snapshot import DeploymentSnapshot, ProviderSnapshot

PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}


@lru_cache(maxsize=4096)
def url_of(deployment: DeploymentSnapshot, endpoint: str) -> str:
    """The address of one endpoint of one deployment."""
    provider = deployment.provider
    base = provider.base_url.rstrip("/")
    if provider.addressing == "azure":
        version = quote(provider.api_version or "2024-10-21", safe="")
        name = quote(deployment.upstream_model, safe="")
        return f"{base}/openai/deployments/{name}{PATHS[endpoint]}?api-version={version}"
    return base + PATHS[endpoint]


def credential_header(provider: ProviderSnapshot) -> tuple[str, str] | None:
    """The header that carries our credential, None when there is none to send."""
    if not provider.secret or provider.auth_style == "none":
        return None
    if provider.auth_style == "bearer":
        return "authorization", f"Bearer {provider.secret}"
    return provider.auth_style, provider.secret


@lru_cache(maxsize=4096)
def headers_of(provider: ProviderSnapshot) -> list[tuple[str, str]]:
    """All request headers for a provider but content-length and host, which the client sets. Do not modify."""
    headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("user-agent", "pointsman"),
    ]
    credential = credential_header(provider)
    if credential:
        headers.append(credential)
    headers.extend(provider.extra_headers)
    return headers
