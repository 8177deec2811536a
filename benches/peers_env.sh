# peers_env.sh: sourced with $python and $venv set; makes the environment with the peers' packages where it is missing.
if ! "$venv/bin/python" -c 'import llama_cpp' 2>/dev/null; then
  "$python" -m venv "$venv"
  # Source build with this machine's instructions: the peer at its best. --no-deps leaves out a server that is not used.
  "$venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.3.4 jinja2==3.1.6 diskcache==5.6.3 typing-extensions==4.15.0
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llama-cpp-python==0.3.16
fi
