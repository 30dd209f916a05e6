"""Objects of libraries whose own way to be pickled fails in another process."""

import os
import subprocess
import sys

import pytest

DECORATED = """
import wrapt

@wrapt.decorator
def plus(function, instance, args, kwargs):
    return function(*args, **kwargs) + 100

@plus
def up(x):
    return x

class Service:
    offset = 1

    @plus
    def method(self, x):
        return x + self.offset

    @plus
    @classmethod
    def of_class(cls, x):
        return x + cls.offset

    @staticmethod
    @plus
    def static(x):
        return x
"""
CALLS = """
from parallel_facade import pmap

service = Service()
for function in (up, service.method, Service.of_class, service.of_class, Service.static):
    assert pmap(function, [1, 2]) == [function(1), function(2)], function
    assert pmap(lambda x: function(x) + 1, [1]) == [function(1) + 1]
print("ok")
"""
MODELS = """
from sqlalchemy import ForeignKey, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from parallel_facade import explain, pmap

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(10))
    posts: Mapped[list["Post"]] = relationship(back_populates="author", lazy="selectin")

class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    user: Mapped[int] = mapped_column(ForeignKey("users.id"))
    author: Mapped[User] = relationship(back_populates="posts")

URL = "sqlite:///data.db"
Base.metadata.create_all(engine := create_engine(URL))
with Session(engine) as session:
    session.add_all([User(name="a", posts=[Post(title="p"), Post(title="q")]), User(name="b")])
    session.commit()
    users = list(session.scalars(select(User).order_by(User.id)))
    session.expunge_all()

def titles(key):
    with Session(create_engine(URL)) as session:
        user = session.get(User, key)
        return user.name, [post.title for post in user.posts]

def names(_):
    with Session(create_engine(URL)) as session:
        return [name for (name,) in session.execute(select(User.name).order_by(User.id))]

assert pmap(titles, [1, 2]) == [("a", ["p", "q"]), ("b", [])]
assert pmap(names, [0]) == [["a", "b"]]
assert pmap(lambda user: (user.name, len(user.posts)), users) == [("a", 2), ("b", 0)]
assert [type(one) for one in pmap(lambda name: User(name=name), ["c"])] == [User]
print("ok")
"""
BARS = """
import tqdm
from parallel_facade import explain, pmap

with tqdm.tqdm(total=3) as bar:
    assert pmap(lambda x: (bar.update(0), x)[1], [1, 2]) == [1, 2]
print("ok")
"""


def ok(folder, code, start_method):
    (folder / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PARALLEL_FACADE_START_METHOD": start_method},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-3000:]


@pytest.mark.parametrize("where", ["module", "script"])
def test_functions_and_methods_decorated_by_wrapt(tmp_path, start_method, where):
    pytest.importorskip("wrapt")
    if where == "module":
        (tmp_path / "decorated.py").write_text(DECORATED)
        ok(tmp_path, "from decorated import Service, up\n" + CALLS, start_method)
    else:
        ok(tmp_path, DECORATED + CALLS, start_method)


def test_models_of_sqlalchemy_in_a_script(tmp_path, start_method):
    pytest.importorskip("sqlalchemy")
    ok(tmp_path, MODELS, start_method)


def test_bars_of_tqdm(tmp_path, start_method):
    ok(tmp_path, BARS, start_method)


TENSORS = """
import torch
from parallel_facade import pmap

shared = torch.zeros(4).share_memory_()
model = torch.nn.Linear(2, 1)
model.share_memory()
view, array = shared[1:3], shared.numpy()

def fill(x):
    shared[x] = x
    view[0] = 7
    array[0] = 5
    with torch.no_grad():
        model.weight[0, 0] = 3
    return model.weight.requires_grad, type(model.weight).__name__

assert pmap(fill, [2, 3]) == [(True, "Parameter")] * 2
assert shared.tolist() == [5, 7, 2, 3], shared
assert model.weight[0, 0] == 3
private = torch.zeros(2)
pmap(lambda x: private.__setitem__(0, x), [1])
assert private.tolist() == [0, 0]
print("ok")
"""


def test_shared_tensors_of_torch(tmp_path, start_method):
    pytest.importorskip("torch")
    ok(tmp_path, TENSORS, start_method)
