"""An SSH server that takes a password, which a real sshd without root cannot check."""

import socket
import threading

import paramiko


class PasswordServer(paramiko.ServerInterface):
    """Lets `password` in and runs nothing; `tried` is what came."""

    def __init__(self, password: str) -> None:
        self.password, self.tried = password, []
        self.key = paramiko.ECDSAKey.generate()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._transports: list[paramiko.Transport] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # closed before anybody came
            return
        transport = paramiko.Transport(client)
        transport.add_server_key(self.key)
        self._transports.append(transport)
        transport.start_server(threading.Event(), self)  # does not wait, nor raise in this thread

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        self.tried.append(password)
        good = password == self.password
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def close(self) -> None:
        for transport in self._transports:
            transport.close()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
        self._listener.close()
