"""The order of training images."""

from modelsoups.data import order


def test_every_epoch_has_its_own_permutation_of_all_images():
    orders = [order.epoch_order(100, 7, epoch) for epoch in range(3)]
    assert all(sorted(o.tolist()) == list(range(100)) for o in orders)
    assert orders[0].tolist() != orders[1].tolist()
    assert orders[0].tolist() == order.epoch_order(100, 7, 0).tolist()
