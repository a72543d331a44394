"""How is nginx set up as the plainest pass-through? The measure for what any proxy costs on this machine.

Pure.
"""

from __future__ import annotations


def build_nginx_config(*, port: int, provider_port: int, is_root: bool) -> str:
    """One worker, kept connections, no buffering of bodies or answers, no access log. Paths are relative to -p."""
    user = "user root;" if is_root else ""
    return f"""
{user}
worker_processes 1;
pid nginx.pid;
error_log bench-nginx.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path nginx-body;
    proxy_temp_path nginx-proxy;
    fastcgi_temp_path nginx-fastcgi;
    uwsgi_temp_path nginx-uwsgi;
    scgi_temp_path nginx-scgi;
    client_max_body_size 64m;
    client_body_buffer_size 64k;
    keepalive_requests 1000000;
    upstream provider {{
        server 127.0.0.1:{provider_port};
        keepalive 512;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""
