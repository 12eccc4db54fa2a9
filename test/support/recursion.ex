defmodule Py.Recursion do
  @moduledoc "Code that recurses deeply in C. It ends a VM whose schedulers run Python."

  @nested "x = []\nfor _ in range(100_000):\n  x = [x]\n"
  @comparing """
  class C:
      def __init__(self, inner): self.inner = inner
      def __lt__(self, other): return sorted([self.inner, other]) == []
  """

  @cases [
    {"repr of a nested list", @nested <> "len(repr(x))"},
    {"json.dumps of a nested list", @nested <> "import json\nlen(json.dumps(x))"},
    {"json.loads of nested lists", "import json\nlen(json.loads('[' * 100_000 + ']' * 100_000))"},
    {"compile of a long sum", "len(compile('+'.join(['1'] * 50_000), 'x', 'eval').co_code) > 0"},
    {"a recursive __lt__ in sorted",
     @comparing <> "x = C(None)\nx.inner = x\nlen(sorted([x, x]))"},
    {"ast.parse of deep parentheses", "import ast\nast.parse('(' * 5_000 + ')' * 5_000)\n1"},
    {"ast.parse of a deep unary", "import ast\nast.parse('-' * 100_000 + '1')\n1"},
    {"pickle.dumps of a nested list", @nested <> "import pickle\nlen(pickle.dumps(x))"},
    {"copy.deepcopy of a nested list", @nested <> "import copy\nlen(copy.deepcopy(x))"},
    {"comparison of nested lists", @nested <> "y = x\nx = [x]\nx == [[y]] or True\n1"},
    {"hash of a nested tuple",
     "x = ()\nfor _ in range(100_000):\n  x = (x,)\nhash(x) is not None\n1"},
    {"a nested regular expression", "import re\nre.compile('(' * 20_000 + ')' * 20_000)\n1"},
    {"a function that calls itself", "def f(): return f()\nf()"},
    {"isinstance with a nested tuple of classes",
     "x = int\nfor _ in range(100_000):\n  x = (x,)\nisinstance('', x)\n1"},
    {"a recursion limit that was raised",
     "import sys\nsys.setrecursionlimit(20_000)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\ntry:\n  r = f(15_000)\nfinally:\n  sys.setrecursionlimit(1000)\nr"}
  ]

  @doc "Names and pieces of code, each of which has a small value or raises an error of its own."
  def cases, do: @cases
end
