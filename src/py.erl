%% @doc Python for Erlang: the functions of the Elixir module `Py'.
%%
%% Names are atoms, binaries or charlists; keyword arguments, variables and options are maps or proplists. The options are
%% those of `Py': `timeout', `on', `inline', `decode', and `file' and `line' for code. An error is the map of a `Py.Error', with keys
%% such as `kind', `type', `message' and `traceback'.
%%
%% ```
%% {ok, 4.0} = py:call(math, sqrt, [16.0]),
%% {ok, 25} = py:eval(<<"x * y">>, #{x => 5, y => 5}),
%% {error, #{kind := python, type := <<"ZeroDivisionError">>}} = py:eval("1 / 0").
%% '''
-module(py).

-export([call/3, call/4, call/5]).
-export([eval/1, eval/2, eval/3]).
-export([exec/1, exec/2, exec/3]).
-export([cast/3, cast/4]).
-export([async_call/3, async_call/4, await/1, await/2]).
-export([async_gather/1, parallel/1]).
-export([stream/3, stream/4, async_stream/3, async_stream/4]).
-export([bind/0, unbind/0, with_context/1]).
-export([register_function/2, unregister_function/1]).
-export([execution_mode/0]).

-export_type([name/0, code/0, kwargs/0, options/0, error/0, result/0]).

-type name() :: atom() | binary() | string().
-type code() :: binary() | string().
-type kwargs() :: #{name() => term()} | [{name(), term()}].
-type options() :: #{atom() => term()} | [{atom(), term()}].
-type error() :: #{kind := atom(), message := binary() | nil, atom() => term()}.
-type result() :: {ok, term()} | {error, error()}.

%% Where a process keeps the futures of its references: `{Limit, #{Ref => {Deadline, Future}}}'. One that receives the
%% results itself never asks for its futures, so at the limit those whose deadline has passed are dropped.
-define(FUTURES, '$py_futures').
-define(LIMIT, 1000).

%% Where a process keeps the session that it is bound to.
-define(SESSION, '$py_session').

%% @equiv call(Module, Function, Arguments, [], [])
-spec call(name(), name(), [term()]) -> result().
call(Module, Function, Arguments) ->
    call(Module, Function, Arguments, [], []).

%% @equiv call(Module, Function, Arguments, Kwargs, [])
-spec call(name(), name(), [term()], kwargs()) -> result().
call(Module, Function, Arguments, Kwargs) ->
    call(Module, Function, Arguments, Kwargs, []).

%% @doc Calls a Python function.
-spec call(name(), name(), [term()], kwargs(), options()) -> result().
call(Module, Function, Arguments, Kwargs, Options) ->
    All = [{kwargs, kwargs(Kwargs)} | here_options(Options)],
    plain('Elixir.Py':call(name(Module), name(Function), Arguments, All)).

%% @equiv eval(Code, #{}, [])
-spec eval(code()) -> result().
eval(Code) ->
    eval(Code, #{}, []).

%% @equiv eval(Code, Variables, [])
-spec eval(code(), kwargs()) -> result().
eval(Code, Variables) ->
    eval(Code, Variables, []).

%% @doc Runs statements: the value of the last expression, or `nil'.
-spec eval(code(), kwargs(), options()) -> result().
eval(Code, Variables, Options) ->
    plain('Elixir.Py':eval(name(Code), variables(Variables), here_options(Options))).

%% @equiv exec(Code, #{}, [])
-spec exec(code()) -> ok | {error, error()}.
exec(Code) ->
    exec(Code, #{}, []).

%% @equiv exec(Code, Variables, [])
-spec exec(code(), kwargs()) -> ok | {error, error()}.
exec(Code, Variables) ->
    exec(Code, Variables, []).

%% @doc Runs statements for their effect.
-spec exec(code(), kwargs(), options()) -> ok | {error, error()}.
exec(Code, Variables, Options) ->
    plain('Elixir.Py':exec(name(Code), variables(Variables), here_options(Options))).

%% @equiv cast(Module, Function, Arguments, [])
-spec cast(name(), name(), [term()]) -> ok.
cast(Module, Function, Arguments) ->
    cast(Module, Function, Arguments, []).

%% @doc Calls a Python function without waiting; a failure is logged.
-spec cast(name(), name(), [term()], kwargs()) -> ok.
cast(Module, Function, Arguments, Kwargs) ->
    'Elixir.Py':cast(name(Module), name(Function), Arguments, here(kwargs(Kwargs))).

%% @equiv async_call(Module, Function, Arguments, [])
-spec async_call(name(), name(), [term()]) -> {ok, reference()}.
async_call(Module, Function, Arguments) ->
    async_call(Module, Function, Arguments, []).

%% @doc Starts a call. The calling process gets `{py_result, Ref, Result}': it gives `Ref' to `await/1,2', or receives the
%% message itself, in which an error is the struct of Elixir, a map with the key `__struct__' besides.
-spec async_call(name(), name(), [term()], kwargs()) -> {ok, reference()}.
async_call(Module, Function, Arguments, Kwargs) ->
    Future = future(Module, Function, Arguments, Kwargs),
    Ref = maps:get(ref, Future),
    keep(Ref, {deadline(), Future}),
    {ok, Ref}.

%% @equiv await(Ref, infinity)
-spec await(reference()) -> result().
await(Ref) ->
    await(Ref, infinity).

%% @doc The result of a call that this process started. A timeout given here cancels the call when it expires. A second
%% `await' of the same reference raises `badarg'.
-spec await(reference(), timeout()) -> result().
await(Ref, Timeout) ->
    {Limit, Futures} = futures(),
    case maps:take(Ref, Futures) of
        {{_Deadline, Future}, Rest} ->
            put(?FUTURES, {Limit, Rest}),
            plain('Elixir.Py':await(Future, Timeout));
        error ->
            error(badarg, [Ref, Timeout])
    end.

%% @doc Makes several calls at once, each `{Module, Function, Arguments}' or `{Module, Function, Arguments, Kwargs}'; the
%% values in their order, or the first error after all have ended.
-spec async_gather([{name(), name(), [term()]} | {name(), name(), [term()], kwargs()}]) ->
    {ok, [term()]} | {error, error()}.
async_gather(Calls) ->
    Results = 'Elixir.Py':await_many([future(Call) || Call <- Calls]),
    case [Error || {error, _} = Error <- Results] of
        [] -> {ok, [Value || {ok, Value} <- Results]};
        [First | _] -> plain(First)
    end.

%% @equiv async_gather(Calls)
-spec parallel([{name(), name(), [term()]} | {name(), name(), [term()], kwargs()}]) ->
    {ok, [term()]} | {error, error()}.
parallel(Calls) ->
    async_gather(Calls).

%% @equiv stream(Module, Function, Arguments, [])
-spec stream(name(), name(), [term()]) -> {ok, [term()]} | {error, error()}.
stream(Module, Function, Arguments) ->
    stream(Module, Function, Arguments, []).

%% @doc All items of the iterable that a Python function returns.
-spec stream(name(), name(), [term()], kwargs()) -> {ok, [term()]} | {error, error()}.
stream(Module, Function, Arguments, Kwargs) ->
    Stream = 'Elixir.Py':stream(name(Module), name(Function), Arguments, here(kwargs(Kwargs))),
    try
        {ok, 'Elixir.Enum':to_list(Stream)}
    catch
        error:#{'__struct__' := 'Elixir.Py.Error'} = Error -> plain({error, Error})
    end.

%% @equiv stream(Module, Function, Arguments)
-spec async_stream(name(), name(), [term()]) -> {ok, [term()]} | {error, error()}.
async_stream(Module, Function, Arguments) ->
    stream(Module, Function, Arguments).

%% @equiv stream(Module, Function, Arguments, Kwargs)
-spec async_stream(name(), name(), [term()], kwargs()) -> {ok, [term()]} | {error, error()}.
async_stream(Module, Function, Arguments, Kwargs) ->
    stream(Module, Function, Arguments, Kwargs).

%% @doc Gives the calling process a session: its calls from then on, unless they say `on', run in one namespace. The session
%% ends with the process. One that is bound stays so.
-spec bind() -> ok | {error, error()}.
bind() ->
    case get(?SESSION) of
        undefined -> bind('Elixir.Py.Session':start_link([]));
        _Bound -> ok
    end.

bind({ok, Session}) ->
    put(?SESSION, Session),
    ok;
bind({error, _} = Error) ->
    plain(Error).

%% @doc Ends the session of the calling process, if it has one.
-spec unbind() -> ok.
unbind() ->
    case erase(?SESSION) of
        undefined -> ok;
        Session -> stop(Session)
    end.

%% It may have ended already.
stop(Session) ->
    unlink(Session),
    try gen_server:stop(Session) catch exit:_ -> ok end,
    ok.

%% @doc Calls a function in a session of its own, which ends when that returns or raises: `py:with_context(fun() -> ... end)'.
-spec with_context(fun(() -> Result)) -> Result | {error, error()}.
with_context(Function) ->
    Before = erase(?SESSION),
    try
        case bind() of
            ok -> Function();
            {error, _} = Error -> Error
        end
    after
        unbind(),
        Before =/= undefined andalso put(?SESSION, Before)
    end.

%% @doc Registers a function, or `{Module, Name}', by which Python code may call it: `erlang.call("name", ...)'.
-spec register_function(name(), fun() | {module(), atom()}) -> ok.
register_function(Name, Function) ->
    'Elixir.Py':register(name(Name), Function).

%% @doc Takes such a name back.
-spec unregister_function(name()) -> ok.
unregister_function(Name) ->
    'Elixir.Py':unregister(name(Name)).

%% @doc Where Python runs: on threads of this node that share one interpreter and its lock.
-spec execution_mode() -> thread | process.
execution_mode() ->
    case 'Elixir.Py.Pool':lookup('Elixir.Py') of
        #{in := Kind} -> Kind;
        _NotStarted -> configured(application:get_env(py, default, []))
    end.

configured(false) -> thread;
configured(Options) -> proplists:get_value(in, Options, thread).

future({Module, Function, Arguments}) ->
    future(Module, Function, Arguments, []);
future({Module, Function, Arguments, Kwargs}) ->
    future(Module, Function, Arguments, Kwargs).

future(Module, Function, Arguments, Kwargs) ->
    'Elixir.Py':async_call(name(Module), name(Function), Arguments, here(kwargs(Kwargs))).

futures() ->
    case get(?FUTURES) of
        undefined -> {?LIMIT, #{}};
        Futures -> Futures
    end.

keep(Ref, Kept) ->
    {Limit, Futures} = within_limit(futures()),
    put(?FUTURES, {Limit, Futures#{Ref => Kept}}).

within_limit({Limit, Futures}) when map_size(Futures) < Limit ->
    {Limit, Futures};
within_limit({_Limit, Futures}) ->
    Now = now_ms(),
    Running = maps:filter(fun(_Ref, {Deadline, _Future}) -> Deadline > Now end, Futures),
    {max(?LIMIT, 2 * map_size(Running)), Running}.

%% An atom is greater than any number.
deadline() ->
    case 'Elixir.Py.Pool':lookup('Elixir.Py') of
        #{timeout := Timeout} when is_integer(Timeout) -> now_ms() + Timeout;
        _ -> infinity
    end.

now_ms() ->
    erlang:monotonic_time(millisecond).

%% Calls of a process that is bound are its session's.
here(Kwargs) ->
    [{kwargs, Kwargs} | here_options([])].

here_options(Options) ->
    Given = options(Options),
    case get(?SESSION) of
        Session when Session =/= undefined -> in_session(Session, Given);
        undefined -> Given
    end.

in_session(Session, Options) ->
    case lists:keymember(on, 1, Options) of
        true -> Options;
        false -> [{on, Session} | Options]
    end.

name(Name) when is_list(Name) -> unicode:characters_to_binary(Name);
name(Name) -> Name.

%% A list stays one, so that a keyword that is given twice is seen.
kwargs(Kwargs) ->
    [{name(Name), Value} || {Name, Value} <- options(Kwargs)].

variables(Variables) ->
    maps:from_list(kwargs(Variables)).

options(Options) when is_map(Options) -> maps:to_list(Options);
options(Options) -> proplists:unfold(Options).

plain({error, Error}) -> {error, plain_error(Error)};
plain(Result) -> Result.

plain_error(#{cause := Cause, context := Context, exceptions := Members} = Error) ->
    Plain = maps:without(['__struct__', '__exception__'], Error),
    Plain#{
        cause := plain_error(Cause),
        context := plain_error(Context),
        exceptions := [plain_error(Member) || Member <- Members]
    };
plain_error(nil) ->
    nil.
