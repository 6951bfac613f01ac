"""The shop's web application: an order and its event are committed together."""

from typing import Annotated

from flask import Flask, Response, jsonify, request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from flask_shop.tables import Order
from holdfast.recording import Holdfast

__all__ = ["NewOrder", "create_app"]


class NewOrder(BaseModel):
    """What is POSTed to ``/orders``."""

    order: Annotated[str, Field(min_length=1, max_length=40)]
    item: Annotated[str, Field(min_length=1, max_length=40)]


def create_app(engine: Engine, holdfast: Holdfast) -> Flask:
    """The application on the database ``engine``, which is Holdfast's as well."""
    app = Flask(__name__)

    @app.post("/orders")
    def place() -> tuple[Response, int]:
        try:
            new = NewOrder.model_validate_json(request.get_data())
        except ValidationError as exc:
            return jsonify(error="invalid", detail=exc.errors(include_url=False, include_input=False)), 400
        try:
            with Session(engine) as session, session.begin():
                session.add(Order(id=new.order, item=new.item))
                event = {"type": "flask-shop.order.placed", "source": "/flask-shop", "subject": new.order, "data": new}
                recorded = holdfast.record(session, event)
        except IntegrityError:
            return jsonify(error="taken", detail=f"there is an order {new.order} already; choose another name"), 409
        return jsonify(order=new.order, event_id=str(recorded.event_id)), 201

    @app.get("/orders/<order_id>")
    def show(order_id: str) -> tuple[Response, int]:
        with Session(engine) as session:
            order = session.get(Order, order_id)
            if order is None:
                return jsonify(error="missing", detail="there is no such order"), 404
            return jsonify(
                order=order.id, item=order.item, packed=order.is_packed, receipt_sent=order.is_receipt_sent
            ), 200

    return app
